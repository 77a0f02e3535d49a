"""Errors carry what a program needs to act on them."""

import pickle
import traceback

import pytest

from hdkd_cli import errors
from hdkd_cli.errors import HdkdError, Problem, SettingsError


def test_the_parts_of_an_error() -> None:
    error = errors.RunError("runs/x: no such run", hint="look elsewhere", subject="runs/x")
    assert str(error) == error.message == "runs/x: no such run"
    assert (error.hint, error.subject) == ("look elsewhere", "runs/x")
    assert "hint: look elsewhere" in "".join(traceback.format_exception(error))


def test_a_hint_is_optional() -> None:
    error = HdkdError("wrong")
    assert (error.hint, error.subject) == (None, None)
    assert "hint" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "error",
    [
        errors.DataError("wrong", hint="do", subject="x"),
        SettingsError.of([Problem("a", "k.a", 1, "--set", ("k.b",), "closest: k.b")]),
    ],
)
def test_an_error_crosses_a_process_border(error: HdkdError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_problems_of_settings() -> None:
    one, two = Problem("a is wrong", "x.a", hint="write 1"), Problem("b is wrong", "x.b")
    alone = SettingsError.of([one])
    assert (str(alone), alone.hint, alone.problems) == ("a is wrong", "write 1", (one,))
    both = SettingsError.of([one, two])
    assert str(both) == "2 settings are wrong:\n  a is wrong; write 1\n  b is wrong"
    assert (both.hint, both.problems) == (None, (one, two))


def test_settings_error_without_parts_is_one_problem() -> None:
    error = SettingsError("the network is too deep", hint="fewer layers")
    assert error.problems == (Problem("the network is too deep", hint="fewer layers"),)
