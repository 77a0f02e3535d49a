"""``hdkd report``: streams, files, exit codes."""

import io
import sys
from pathlib import Path

import pytest
from small_runs import SMALL

from hdkd_cli import app

ANY = pytest.CaptureFixture[str]

pytest.importorskip("matplotlib")


def test_page_figures_and_path(trained: Path, tmp_path: Path, capsys: ANY) -> None:
    page = tmp_path / "new" / "mine.html"
    assert app.run(["report", str(trained), "-o", str(page)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{page}\n"
    html = page.read_text()
    assert html.count('<img src="data:image/png;base64,') > 6  # digits, easy and hard
    assert "Easy and hard images" in html
    assert (page.parent / "mine-figures" / "accuracy-against-cost.png").exists()
    assert not list(page.parent.glob(".*"))  # nothing half-written is left


def test_default_place_stdin_and_images_that_are_gone(
    trained: Path, tmp_path: Path, capsys: ANY, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{trained}\n"))
    text = (trained / "run.json").read_text()
    before = text[text.index('"train": "') :][:20]
    (trained / "run.json").write_text(text.replace(before, before[:10] + "0" * 10))  # other images
    assert app.run(["report", "-", "--figures", str(tmp_path / "figures")]) == 0
    assert capsys.readouterr().out == f"{trained}/reports/report.html\n"
    html = (trained / "reports" / "report.html").read_text()
    assert "There are no test scores" not in html  # those that were kept serve
    assert "No easy and hard images" in html
    assert '<img src="data:image/png' not in html
    assert (tmp_path / "figures" / "reliability.csv").exists()
    assert not (trained / "reports" / "report-figures").exists()


def test_plain_needs_no_matplotlib(
    trained: Path, capsys: ANY, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert app.run(["report", str(trained), "--plain"]) == 0
    assert "leaving early, policy geometric" in capsys.readouterr().out
    assert not (trained / "reports" / "report.html").exists()
    assert app.run(["report", str(trained)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 2
    assert "hdkd[plots]" in captured.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["/nowhere"], 3, "no such run folder"),
        (["RUN", "--plain", "-o", "x.html"], 2, "--plain"),
        (["RUN", "--plain", "--figures", "x"], 2, "--plain"),
        (["RUN", "-o", "/proc/nowhere/x.html"], 3, "/proc/nowhere"),
        (["RUN"] * 27, 2, "at most 26"),
        ([], 2, "RUN"),
    ],
)
def test_what_cannot_be_done(
    trained: Path, arguments: list[str], code: int, message: str, capsys: ANY
) -> None:
    given = [str(trained) if word == "RUN" else word for word in arguments]
    assert app.run(["report", *given]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err


def test_settings_know_their_layer_though_the_preset_was_a_file(
    tmp_path: Path, capsys: ANY
) -> None:
    assert app.run(["presets", "copy", "digits", str(tmp_path / "mine.toml")]) == 0
    small = ["--name", "toml", "--runs-dir", str(tmp_path), *SMALL[1:]]
    assert app.run(["train", str(tmp_path / "mine.toml"), *small]) == 0
    assert app.run(["report", str(tmp_path / "toml"), "-o", str(tmp_path / "r.html")]) == 0
    html = (tmp_path / "r.html").read_text()
    assert "<td>unknown</td>" not in html
    assert html.count("<td>--set</td>") == SMALL.count("--set")
