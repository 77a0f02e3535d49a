"""``hdkd compare``: streams, formats, exit codes."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from hdkd_cli import app
from hdkd_cli.evaluation.scores import read_scores, write_scores

ANY = pytest.CaptureFixture[str]


@pytest.fixture
def other(trained: Path) -> Path:
    """The same network under another name, as if another method had trained it."""
    copy = Path(shutil.copytree(trained, trained.with_name("other"), symlinks=True))
    text = (copy / "settings.toml").read_text()
    assert "learned = true" in text
    (copy / "settings.toml").write_text(text.replace("learned = true", "learned = false"))
    return copy


def test_json_holds_exits_budgets_and_their_mean(trained: Path, other: Path, capsys: ANY) -> None:
    assert app.run(["compare", str(trained), str(other)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["schema"] == "hdkd/comparison/1"
    assert record["first"] == "copy"
    assert [side["name"] for side in record["sides"]] == ["copy", "other"]
    assert len(record["differences"]) == 3 + 33 + 1
    assert {d["difference_pct"] for d in record["differences"]} == {0.0}  # the same network
    assert {d["verdict"] for d in record["differences"]} == {"within noise"}


def test_a_table_shows_every_eighth_budget_and_csv_all(
    trained: Path, other: Path, capsys: ANY
) -> None:
    assert app.run(["compare", str(trained), str(other), "--format", "table"]) == 0
    table = capsys.readouterr().out
    assert table.count("geometric at") == 5
    assert "mean of 33 budgets" in table
    assert "levels" not in table
    assert app.run(["compare", str(trained), str(other), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 37
    chosen = ["--budget", "0.5", "--budget", "1", "--format", "jsonl"]
    assert app.run(["compare", str(trained), str(other), *chosen]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3 + 2 + 1


def test_unfinished_runs_are_told(trained: Path, other: Path, capsys: ANY) -> None:
    assert app.run(["compare", str(trained), str(other)]) == 0
    assert "finished" not in capsys.readouterr().err
    info = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps(info | {"status": "paused"}))
    assert app.run(["compare", str(trained), str(other)]) == 0
    said = capsys.readouterr().err
    assert f"warning: {other}: is not finished (paused): its newest checkpoint is compared" in said


def test_methods(trained: Path, other: Path, capsys: ANY) -> None:
    assert app.run(["compare", "--by", "method", str(trained), str(other)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [side["name"] for side in record["sides"]] == ["hdkd", "naive-dkd"]
    assert {d["seeds"] for d in record["differences"]} == {1}


def test_without_a_common_policy_the_geometric_family_is_fitted(
    trained: Path, other: Path, capsys: ANY
) -> None:
    shutil.rmtree(other / "policies")
    assert app.run(["compare", str(trained), str(other)]) == 0
    captured = capsys.readouterr()
    assert "the geometric family of val" in captured.err
    assert len(json.loads(captured.out)["differences"]) == 37
    assert not (other / "policies").exists()


def test_score_files_and_what_cannot_be_compared(
    trained: Path, tmp_path: Path, capsys: ANY
) -> None:
    kept = trained / "scores" / "test.safetensors"
    scores = read_scores(kept)
    elsewhere = tmp_path / "elsewhere.safetensors"
    write_scores(
        elsewhere,
        type(scores)(
            scores.logits_KNC, scores.labels_N, scores.macs_K,
            meta={**scores.meta, "dataset": "another"},
        ),
    )  # fmt: skip
    assert app.run(["compare", str(trained), "--scores", str(kept)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert len(record["differences"]) == 3
    assert record["notes"] == ["Policy geometric is not compared: not all of the runs have it"]
    assert app.run(["compare", str(trained), "--scores", str(elsewhere)]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "another data set (another, not digits)" in captured.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["RUN"], 2, "at least two"),
        (["RUN", "RUN"], 2, "more than once"),
        (["RUN", "/nowhere"], 3, "no such run folder"),
        (["RUN", "--scores", "FILE", "--by", "method"], 2, "a score file has neither"),
        (["RUN", "--scores", "FILE", "--budget", "fast"], 2, "budget"),
        (["RUN", "--scores", "FILE", "--split", "val"], 3, "split"),
    ],
)
def test_what_is_refused(
    trained: Path, arguments: list[str], code: int, message: str, capsys: ANY
) -> None:
    words = {"RUN": str(trained), "FILE": str(trained / "scores" / "test.safetensors")}
    assert app.run(["compare", *(words.get(word, word) for word in arguments)]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
