"""The command line as a whole: what loads, what is printed where, how things end."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hdkd_cli import app, errors
from hdkd_cli.settings import presets

ANY = pytest.CaptureFixture[str]


def test_help_loads_neither_torch_nor_settings() -> None:
    code = (
        "import sys; from hdkd_cli.app import run; code = run(['--help']); "
        "heavy = {'torch', 'torchvision', 'numpy', 'pydantic', 'tomlkit'} & set(sys.modules); "
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in ("presets", "settings", "doctor", "--install-completion"):
        assert verb in done.stdout


def test_version(capsys: ANY) -> None:
    assert app.run(["--version"]) == 0
    assert capsys.readouterr().out == f"hdkd {app.version()}\n"


@pytest.mark.parametrize(
    "arguments",
    [["nosuchverb"], ["presets", "list", "--nosuch"], ["presets", "list", "--format=x"]],
)
def test_misuse_is_2(arguments: list[str], capsys: ANY) -> None:
    assert app.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Error" in captured.err


def fail_with(monkeypatch: pytest.MonkeyPatch, problem: BaseException) -> None:
    def fail() -> None:
        raise problem

    monkeypatch.setattr(presets, "names", fail)


@pytest.mark.parametrize(
    ("problem", "code", "message"),
    [
        (errors.UsageError("two words"), 2, "error: two words\n"),
        (errors.SettingsError("2 wrong:\n  a\n  b"), 2, "error: 2 wrong:\n  a\n  b\n"),
        (errors.RunError("[x]"), 3, "error: [x]\n"),
        (errors.RunError("gone", hint="look", subject="x"), 3, "error: gone\nhint: look\n"),
        (errors.DivergedError("nan"), 4, "error: nan\n"),
        (errors.GateError("low"), 5, "error: low\n"),
        (errors.InterruptedRun("saved", 15), 143, "error: saved\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/d/f"), 3,
         "error: /d/f: No space left on device\n"),
        (OSError(errno.EROFS, "Read-only file system"), 3, "error: Read-only file system\n"),
        (TimeoutError("no answer"), 3, "error: no answer\n"),
        (BrokenPipeError(), 141, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
)  # fmt: skip
def test_how_it_ends(
    problem: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: ANY,
) -> None:
    fail_with(monkeypatch, problem)
    assert app.run(["presets", "list"]) == code
    captured = capsys.readouterr()
    assert captured.err == message
    assert captured.out == ""


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, capsys: ANY) -> None:
    fail_with(monkeypatch, KeyError("missing"))
    assert app.run(["presets", "list"]) == 1
    *trace, last = capsys.readouterr().err.splitlines()
    assert trace[0].startswith("Traceback")
    assert "KeyError: 'missing'" in trace
    assert last.startswith("error: this is a bug in hdkd")


def test_debug_shows_where_an_error_was_raised(
    monkeypatch: pytest.MonkeyPatch, capsys: ANY
) -> None:
    fail_with(monkeypatch, errors.RunError("gone"))
    assert app.run(["--debug", "presets", "list"]) == 3
    captured = capsys.readouterr().err
    assert captured.startswith("Traceback")
    assert captured.endswith("error: gone\n")


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full")
@pytest.mark.parametrize(("target", "code"), [(closed_pipe, 141), (full_disk, 3)])
def test_stdout_that_takes_nothing(
    target: Callable[[], int], code: int, monkeypatch: pytest.MonkeyPatch, capsys: ANY
) -> None:
    stream = os.fdopen(target(), "w")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "argv", ["hdkd", "presets", "list"])
    with pytest.raises(SystemExit) as end:
        app.main()
    assert end.value.code == code
    stream.close()  # main() pointed it at /dev/null: nothing is left that could fail
    message = "error: No space left on device\n" if code == 3 else ""
    assert capsys.readouterr().err == message


def test_quiet_keeps_notes_to_itself(tmp_path: Path, capsys: ANY) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[data]\nname = 'cifar10'\nflip = false\n")
    change = ["settings", "show", str(mine), "--set", "data.name=digits"]
    assert app.run(change) == 0
    assert "note: data.flip" in capsys.readouterr().err
    assert app.run(["-q", *change]) == 0
    assert capsys.readouterr().err == ""


def test_output_is_one_record_for_programs(capsys: ANY) -> None:
    """Every verb that prints a record without reading a run, through a JSON parser."""
    for verb in (
        ["presets", "list"],
        ["settings", "show", "--format", "json"],
        ["settings", "schema"],
    ):
        assert app.run(verb) == 0
        captured = capsys.readouterr()
        assert isinstance(json.loads(captured.out), dict), verb
        assert captured.err == ""


def test_ctrl_c_that_a_library_turns_into_an_error_is_130() -> None:
    program = """
import os, signal, sys
from hdkd_cli import app

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def verb():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("loaded by half")

app.app.command("verb")(verb)
sys.argv = ["hdkd", "verb"]
app.main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
