"""What is said on stderr."""

import time

import pytest

from hdkd_cli.ui.console import Talk, visible


def test_messages_are_printed_as_they_are_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    message = "[red]3[/red] :smile: " + "long " * 100 + "end"
    Talk().error(message)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"error: {message}\n"


def test_quiet_keeps_warnings_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    talk = Talk()
    talk.note("n")
    talk.quiet = True
    talk.note("unheard")
    talk.warning("w")
    talk.error("e")
    assert capsys.readouterr().err == "note: n\nwarning: w\nerror: e\n"


def test_colour_is_for_terminals_that_want_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    Talk().warning("w")
    assert "\x1b[33m" in capsys.readouterr().err
    monkeypatch.setenv("NO_COLOR", "1")
    Talk().warning("w")
    assert "\x1b[33m" not in capsys.readouterr().err


def test_patience_is_asked_for_only_when_it_takes_long(capsys: pytest.CaptureFixture[str]) -> None:
    talk = Talk()
    with talk.patience("quick", seconds=60):
        pass
    with talk.patience("slow", seconds=0):
        while not (said := capsys.readouterr().err):
            time.sleep(0.01)
    assert said == "note: slow …\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode 日本 ✓", "plain ünïcode 日本 ✓"),
        ("\x1b[2J\x07\x7f", "\\x1b[2J\\x07\\x7f"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb\u2066c\u200e", "a\\u202eb\\u2066c\\u200e"),
        ("a\nb\rc\u2028d", "a\\nb\\rc\\u2028d"),
        ("\udcff", "\\udcff"),
        ("👩\u200d🔬", "👩\u200d🔬"),
    ],
)
def test_nothing_acts_on_a_terminal(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_only_lines_of_our_own_are_broken() -> None:
    assert visible("2 are wrong:\n  a\n  b", lines=True) == "2 are wrong:\n  a\n  b"
    assert visible("x\nerror: forged", lines=True) == "x\\nerror: forged"
