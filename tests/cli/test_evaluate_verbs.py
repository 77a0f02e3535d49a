"""The evaluation verbs: streams, shapes, exit codes, refusals."""

import csv
import io
import json
from pathlib import Path

import pytest
import torch

from hdkd_cli import app, load
from hdkd_cli.evaluation.scores import Scores, read_scores, write_scores

ANY = pytest.CaptureFixture[str]


def piped(arguments: list[str], capsys: ANY, code: int = 0) -> dict:
    assert app.run(arguments) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_anytime_record(trained: Path, capsys: ANY) -> None:
    record = piped(["eval-anytime", str(trained)], capsys)
    assert record["schema"] == "hdkd/anytime/1"
    assert record["split"] == "test"
    assert record["samples"] == 360
    assert [e["exit"] for e in record["exits"]] == [1, 2, 3]
    assert {
        "macs", "macs_eager", "ops", "params", "top1_pct", "top5_pct", "nll", "ece_pct",
    } <= record["exits"][0].keys()  # fmt: skip
    # against the network itself
    model = load(trained)
    from hdkd_cli.data import open_data

    batches = open_data(model.settings.data).evaluation_batches(
        "test", batch_size=360, device=torch.device("cpu")
    )
    images, labels = next(iter(batches))
    with torch.no_grad():
        right = (model.net(images).argmax(-1) == labels).float().mean(1) * 100
    assert [e["top1_pct"] for e in record["exits"]] == pytest.approx(right.tolist(), abs=1e-4)


def test_policy_and_budget_records_and_pipe(
    trained: Path, capsys: ANY, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app.run(["calibrate-thresholds", str(trained)]) == 0
    text = capsys.readouterr().out
    policy = json.loads(text)
    assert policy["schema"] == "hdkd/policy/1"
    assert len(policy["points"]) == 39
    assert policy["fitted_on"]["split"] == "val"
    assert json.loads((trained / "policies" / "geometric.json").read_text()) == policy

    record = piped(["eval-budget", str(trained)], capsys)
    assert record["schema"] == "hdkd/budget/1"
    assert sum(record["points"][7]["exit_share"]) == pytest.approx(1)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert piped(["eval-budget", str(trained), "--policy", "-"], capsys) == record
    assert piped(["eval-budget", str(trained), "--policy", "geometric"], capsys) == record


def test_budgets_are_met(trained: Path, capsys: ANY) -> None:
    arguments = ["calibrate", str(trained), "--budget", "0.6", "--budget", "1", "-o"]
    out = trained / "mine.json"
    policy = piped([*arguments, str(out)], capsys)
    full = piped(["eval-anytime", str(trained)], capsys)["exits"][-1]["macs"]
    assert [p["target_macs"] for p in policy["points"]] == pytest.approx([0.6 * full, full])
    assert all(p["val_macs"] <= p["target_macs"] for p in policy["points"])
    assert piped(["eval-budget", str(trained), "--policy", str(out)], capsys)["points"][1][
        "exit_share"
    ] == [0, 0, 1]


@pytest.mark.parametrize("budget", ["0", "1.5", "lots", "-1", "0.0001", "10k"])
def test_impossible_budgets_are_2(trained: Path, capsys: ANY, budget: str) -> None:
    before = (trained / "policies" / "geometric.json").read_bytes()
    assert app.run(["calibrate", str(trained), "--budget", budget]) == 2
    captured = capsys.readouterr()
    assert "budget" in captured.err
    assert captured.out == ""
    assert (trained / "policies" / "geometric.json").read_bytes() == before


def test_run_from_stdin(trained: Path, capsys: ANY, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{trained}\n"))
    assert piped(["eval-anytime", "-"], capsys)["run"] == str(trained)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert app.run(["eval-anytime", "-"]) == 3
    assert "stdin" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "rows"), [("eval-anytime", 3), ("calibrate-thresholds", 39), ("eval-budget", 39)]
)
def test_every_format(trained: Path, capsys: ANY, verb: str, rows: int) -> None:
    assert app.run([verb, str(trained), "--format", "jsonl"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([json.loads(line) for line in lines]) == rows
    assert app.run([verb, str(trained), "--format", "csv"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(table) == rows
    assert app.run([verb, str(trained), "--format", "table"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > rows


def test_scores_file_serves_all_verbs(trained: Path, tmp_path: Path, capsys: ANY) -> None:
    val, test = tmp_path / "val.safetensors", tmp_path / "test.safetensors"
    for path, split in ((val, "val"), (test, "test")):
        assert app.run(["scores", str(trained), "-o", str(path), "--split", split]) == 0
        assert capsys.readouterr().out == f"{path}\n"
    by_run = piped(["eval-anytime", str(trained)], capsys)
    by_file = piped(["eval-anytime", "--scores", str(test)], capsys)
    assert by_run["exits"] == by_file["exits"]
    policy = tmp_path / "p.json"
    piped(["calibrate", "--scores", str(val), "-o", str(policy)], capsys)
    record = piped(["eval-budget", "--scores", str(test), "--policy", str(policy)], capsys)
    assert record["points"] == piped(["eval-budget", str(trained)], capsys)["points"]
    assert app.run(["calibrate", "--scores", str(test)]) == 2
    assert "test" in capsys.readouterr().err
    assert app.run(["eval-anytime", str(trained), "--scores", str(test)]) == 2
    assert app.run(["eval-anytime"]) == 2


def test_gate(trained: Path, capsys: ANY) -> None:
    record = piped(["eval-anytime", str(trained), "--fail-under", "0"], capsys)
    assert piped(["eval-anytime", str(trained), "--fail-under", "100"], capsys, 5) == record
    piped(["eval-budget", str(trained), "--fail-under", "100"], capsys, 5)


def test_no_policy_yet_says_what_to_run(trained: Path, capsys: ANY) -> None:
    (trained / "policies" / "last").unlink()
    assert app.run(["eval-budget", str(trained)]) == 2
    assert "calibrate-thresholds" in capsys.readouterr().err


def test_policy_of_another_checkpoint(trained: Path, capsys: ANY) -> None:
    path = trained / "policies" / "geometric.json"
    policy = json.loads(path.read_text())
    policy["fitted_on"]["checkpoint_sha256"] = "0" * 64
    path.write_text(json.dumps(policy))
    assert app.run(["eval-budget", str(trained)]) == 3
    assert "--allow-mismatch" in capsys.readouterr().err
    assert app.run(["eval-budget", str(trained), "--allow-mismatch"]) == 0
    captured = capsys.readouterr()
    assert "warning" in captured.err
    json.loads(captured.out)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSON"),
        ("{}", "schema"),
        (None, "no such"),
    ],
)
def test_bad_policies_are_3(trained: Path, capsys: ANY, text: str | None, message: str) -> None:
    path = trained / "bad.json"
    if text is not None:
        path.write_text(text)
    assert app.run(["eval-budget", str(trained), "--policy", str(path)]) == 3
    assert message in capsys.readouterr().err


def test_wrong_number_of_thresholds_is_3(trained: Path, capsys: ANY) -> None:
    path = trained / "policies" / "geometric.json"
    policy = json.loads(path.read_text())
    policy["points"][3]["thresholds"].append(0.5)
    path.write_text(json.dumps(policy))
    assert app.run(["eval-budget", str(trained)]) == 3
    assert "thresholds" in capsys.readouterr().err


def test_scores_are_collected_again_when_the_checkpoint_changes(trained: Path, capsys: ANY) -> None:
    before = piped(["eval-anytime", str(trained)], capsys)
    assert app.run(["train", "--resume", str(trained), "--set", "training.max_steps=6"]) == 0
    capsys.readouterr()
    after = piped(["eval-anytime", str(trained)], capsys)
    assert [e["nll"] for e in before["exits"]] != [e["nll"] for e in after["exits"]]


def test_nan_logits_are_refused(trained: Path, tmp_path: Path, capsys: ANY) -> None:
    cached = read_scores(trained / "scores" / "test.safetensors")
    assert isinstance(cached, Scores)
    object.__setattr__(cached, "logits_KNC", cached.logits_KNC.copy())
    cached.logits_KNC[1, 0, 0] = float("nan")
    write_scores(tmp_path / "nan.safetensors", cached)
    assert app.run(["eval-anytime", "--scores", str(tmp_path / "nan.safetensors")]) == 3
    assert "exit 2" in capsys.readouterr().err


def test_unwritable_output_is_3(trained: Path, capsys: ANY) -> None:
    assert app.run(["calibrate", str(trained), "-o", "/proc/nowhere/p.json"]) == 3
    assert capsys.readouterr().err.startswith("error: /proc/nowhere")
