"""Text of others: what is too large, too deep or no text ends in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hdkd_cli.errors import RunError
from hdkd_cli.reading import MAX_DEPTH, parse_json, parse_toml, read_text, read_toml

JSON_CASES = {
    "9" * 5000: "is not JSON",
    "9" * 30: "more than 63 bits",
    "1e999": "beyond what a float can hold",
    "-Infinity": "no number in JSON",
    "[" * 2000 + "]" * 2000: f"more than {MAX_DEPTH} deep",
    '{"a":' * 50 + "1" + "}" * 50: f"more than {MAX_DEPTH} deep",
    "[" * 1_000_000: f"more than {MAX_DEPTH} deep",
    '"\\x"': "is not JSON",
}
TOML_CASES = {
    f"a = {'9' * 5000}": "is not valid TOML",
    f"a = {'9' * 30}": "more than 63 bits",
    f"a = {'[' * 2000}{']' * 2000}": f"more than {MAX_DEPTH} deep",
    f"a = {'[' * 50}{']' * 50}": f"more than {MAX_DEPTH} deep",
    f"{'.'.join('a' * 2000)} = 1": f"more than {MAX_DEPTH} deep",
    "a = 'x": "is not valid TOML",
}


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [(parse_json, *case) for case in JSON_CASES.items()]
    + [(parse_toml, *case) for case in TOML_CASES.items()],
    ids=lambda value: value[:20] if isinstance(value, str) else value.__name__,
)
def test_what_is_beyond_the_limits(
    parse: Callable[[str, str, type[RunError]], Any], text: str, message: str
) -> None:
    with pytest.raises(RunError, match=message) as caught:
        parse(text, "here", RunError)
    assert str(caught.value).startswith("here: ")
    assert len(str(caught.value)) < 300


def test_what_is_within_them() -> None:
    deep = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    assert parse_json(f"[{deep}, {2**63 - 1}, 1e308]", "", RunError)[1:] == [2**63 - 1, 1e308]
    assert parse_toml("a = inf", "", RunError)["a"] == float("inf")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "f"
    for path, message in ((file, "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(RunError, match=message):
            read_text(path, RunError)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="not a text file"):
        read_text(file, RunError)
    file.write_bytes(b"\xef\xbb\xbfa = 1")
    assert read_toml(file, RunError) == {"a": 1}
    file.write_bytes(b" " * 100)
    with pytest.raises(RunError, match="is larger than 0 KiB"):
        read_text(file, RunError, limit=99)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="Linux has /dev/zero")
def test_a_file_without_an_end() -> None:
    with pytest.raises(RunError, match="is larger than 1024 KiB"):
        read_toml(Path("/dev/zero"), RunError)
