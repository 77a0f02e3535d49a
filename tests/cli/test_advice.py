"""What is said to a misspelling, and what a shell offers after TAB."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import typer

from hdkd_cli import app
from hdkd_cli.commands import completion

ANY = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--lr", "0.1"], "Use --set optimizer.lr=VALUE or --set weights.lr=VALUE."),
        (["train", "--epochs=3"], "Use --set training.epochs=VALUE."),
        (["settings", "show", "--batch-size", "3"], "--set training.batch_size=VALUE"),
        (["train", "--method", "joint"], "Use --set method=NAME: joint, "),
        (["eval-budget", "x", "--budget", "0.5"], "`hdkd calibrate-thresholds RUN --budget B`"),
        (["train", "--set", "data.mixup=1"], "hint: closest: training.mixup = 0.0"),
        (["train", "--set", "data.zzz=1"], "hint: data has name, "),
        (["train", "cifar10"], "hint: `hdkd train --set data.name=cifar10` trains on it; presets"),
        (["eval-anytime", "x", "--fail-under", "0.99"], "hint: write 99 for a share of 0.99, or "),
        (["eval-anytime", "x", "--fail-under", "nan"], "a percentage from 0 to 100 is needed"),
        (["eval-anytime", "x", "--fail-under", "101%"], "a percentage from 0 to 100 is needed"),
    ],
)
def test_what_was_probably_meant(
    arguments: list[str], said: str, capsys: ANY, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert app.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err


def test_a_run_is_no_preset(trained: Path, tmp_path: Path, capsys: ANY) -> None:
    assert app.run(["train", str(trained)]) == 2
    assert f"hint: `hdkd train --resume {trained}`" in capsys.readouterr().err
    assert app.run(["train", str(tmp_path)]) == 2
    assert f"--data-dir {tmp_path}`" in capsys.readouterr().err


def test_the_gate_in_percent(trained: Path, capsys: ANY) -> None:
    for asked, code in (("0", 0), ("0.5%", 0), ("99.9%", 5), ("99.9", 5)):
        assert app.run(["eval-anytime", str(trained), "--fail-under", asked]) == code


FACTORY = """
def raising(**given):
    raise ValueError("no such width")
"""


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (FACTORY, "it raised ValueError: no such width ({place}, line 3)"),
        ("x = 1 / 0", "importing {module} raised ZeroDivisionError: division by zero ({place}"),
        ("import sys; sys.exit(0)", "importing {module} raised SystemExit: 0 ({place}, line 1)"),
        ("def raising(:", "importing {module} raised SyntaxError: "),
    ],
)
def test_a_factory_that_raises_is_its_writers_error(
    source: str, said: str, tmp_path: Path, capsys: ANY, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path.name.replace("-", "_")
    place = tmp_path / f"{module}.py"
    place.write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    own = ["--set", f"model.name={module}:raising", "--set", "model.exits=3", "--device", "cpu"]
    assert app.run(["train", "--dry-run", *own]) == 2
    error = capsys.readouterr().err
    assert said.format(module=module, place=place) in error
    assert "Traceback" not in error


def test_completion(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completion.presets("digi") == ["digits"]
    assert ("optimizer.lr=", "0.1") in completion.assignments("optimizer.")
    assert ("method=joint", "a method of the paper") in completion.assignments("method=j")
    monkeypatch.chdir(trained.parent)
    assert completion.runs("c") == ["copy/"]
    assert completion.runs(f"{trained.parent}/c") == [f"{trained}/"]
    context = cast(typer.Context, SimpleNamespace(params={"run": "copy"}))
    assert completion.policies(context, "geo") == ["geometric"]
    assert completion.policies(context, "copy/policies/geo") == ["copy/policies/geometric.json"]


def test_a_shell_is_offered_settings(capsys: ANY, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_HDKD_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "hdkd train --set training.ep")
    monkeypatch.setenv("COMP_CWORD", "3")
    app.run([])
    assert "training.epochs=" in capsys.readouterr().out
