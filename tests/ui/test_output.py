"""Records in four formats."""

import csv
import io
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdkd_cli.records.base import Record
from hdkd_cli.ui.output import cell, emit, plain, to_columns


class X(Record):
    """A record with rows."""

    schema_id: ClassVar[str] = "hdkd/x/1"
    rows: ClassVar[str | None] = "exits"
    run: str
    samples: int
    exits: tuple[dict[str, Any], ...]


class Whole(X):
    """The same without rows."""

    rows: ClassVar[str | None] = None


EXITS = [
    {"exit": 1, "macs": 1234567, "top1_pct": 51.239, "shares": [0.25, None]},
    {"exit": 2, "macs": 2345678, "top1_pct": float("nan"), "shares": [0.5, 0.5], "extra": True},
]
RECORD = X(run="runs/[red]x[/red]", samples=3, exits=tuple(EXITS))
WHOLE = Whole(**RECORD.model_dump())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(capsys: pytest.CaptureFixture[str], *args: Any, **kwargs: Any) -> str:
    emit(*args, **kwargs)
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_json_is_the_whole_record_without_nan(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(written(capsys, RECORD, "json", columns=("exit",)))
    assert found["exits"][0] == EXITS[0]
    assert found["exits"][1]["top1_pct"] is None
    assert found["samples"] == 3
    assert json.loads(written(capsys, EXITS[:1], "json")) == EXITS[:1]


def test_jsonl_is_a_row_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    for records in (RECORD, EXITS, iter(EXITS)):
        lines = written(capsys, records, "jsonl").splitlines()
        assert [json.loads(line)["exit"] for line in lines] == [1, 2]
    assert json.loads(written(capsys, WHOLE, "jsonl"))["run"] == RECORD.run


def test_jsonl_lines_are_written_as_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    def records() -> Any:
        yield {"n": 1}
        assert json.loads(capsys.readouterr().out) == {"n": 1}
        yield {"n": 2}

    emit(records(), "jsonl")
    assert json.loads(capsys.readouterr().out) == {"n": 2}


def test_csv_has_one_column_for_each_number(capsys: pytest.CaptureFixture[str]) -> None:
    text = written(capsys, RECORD, "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == ["exit", "macs", "top1_pct", "shares_1", "shares_2", "extra"]
    assert rows[0] == {
        "exit": "1", "macs": "1234567", "top1_pct": "51.239",
        "shares_1": "0.25", "shares_2": "", "extra": "",
    }  # fmt: skip
    assert rows[1]["top1_pct"] == ""
    assert rows[1]["extra"] == "true"


def test_table_shows_the_rows_under_what_they_share(capsys: pytest.CaptureFixture[str]) -> None:
    text = written(capsys, RECORD, "table", columns=("exit", "macs", "top1_pct"))
    assert "run: runs/[red]x[/red]\n" in text  # no markup
    assert "schema" not in text
    assert "shares" not in text
    lines = [line.split() for line in text.splitlines()]
    assert ["exit", "macs", "top1_pct"] in lines
    assert ["1", "1.23", "M", "51.24"] in lines
    assert ["2", "2.35", "M", "–"] in lines


def test_table_of_one_record_is_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.split() for line in written(capsys, EXITS[1], "table").splitlines()]
    assert ["extra", "yes"] in lines
    assert ["shares", "0.5", "0.5"] in lines


def test_a_part_of_the_record_is_a_table_below_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    class Parted(X):
        part: dict[str, Any]

    inner = {"batch": 1, "images_per_s": 12345.6}
    part = {"batch": 64, "images_per_s": 3.5, "macs": 2e6, "one_by_one": inner}
    text = written(capsys, Parted(**RECORD.model_dump(), part=part), "table", columns=("exit",))
    lines = [line.split() for line in text.splitlines()]
    head = lines.index(["part", "one_by_one"])
    assert head > lines.index(["exit"])
    assert ["batch", "64", "1"] in lines[head:]
    assert ["images_per_s", "3.5", "12,346"] in lines[head:]
    assert ["macs", "2.00", "M"] in lines[head:]
    assert not any(line.startswith("part:") for line in text.splitlines())


def test_table_in_a_file_is_never_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert "x" * 5000 in written(capsys, [{"name": "x" * 5000}], "table")


def test_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    empty = X(run="r", samples=0, exits=())
    assert written(capsys, empty, "jsonl") == ""
    assert written(capsys, empty, "csv") == "\n"
    assert "exit" in written(capsys, empty, "table", columns=("exit",))
    assert json.loads(written(capsys, [], "json")) == []


def test_default_format_follows_stdout(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads(written(capsys, RECORD)) == plain(RECORD.as_record())
    assert json.loads(written(capsys, EXITS[:1], piped="jsonl")) == EXITS[0]
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    emit(RECORD)
    assert "1.23 M" in terminal.getvalue()


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_names_in_any_script_are_readable(capsys: pytest.CaptureFixture[str], form: Any) -> None:
    hostile = "\x1b[2J \x9b \u202e \udcff"
    text = written(capsys, [{"class": "貓 chat é"}, {"class": hostile}], form)
    assert '"class": "貓 chat é"' in text
    assert not {"\x1b", "\x9b", "\u202e", "\udcff"} & set(text)
    assert "\\u202e" in text
    assert "\\udcff" in text


def test_a_narrow_stdout_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr("sys.stdout", narrow)
    emit([{"class": "é貓"}], "jsonl")
    narrow.flush()
    assert json.loads(narrow.buffer.getvalue()) == {"class": "é貓"}


def test_no_colour_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\x1b" not in written(capsys, RECORD, "table")


def test_plain_knows_paths_and_tuples() -> None:
    assert plain({"a": (1, Path("x")), 2: float("inf")}) == {"a": [1, "x"], "2": None}


def test_flatten_names() -> None:
    nested = {"a": [1, [2, 3]], "b": {"c": 4, "d": [{"e": 5}]}, "f": [], "g": None}
    assert to_columns(nested) == {
        "a_1": 1,
        "a_2_1": 2,
        "a_2_2": 3,
        "b_c": 4,
        "b_d_1_e": 5,
        "g": None,
    }


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (None, "", "–"),
        (False, "", "no"),
        (9999, "", "9999"),
        (-10000, "", "-10,000"),
        (0.123456, "", "0.1235"),
        (75.845, "top1_pct", "75.84"),
        (100.0, "top1_pct", "100.00"),
        (5_905_664, "macs", "5.91 M"),
        (2_995_456, "macs_eager", "3.00 M"),
        (1.2e9, "target_macs", "1,200.00 M"),
        ([0.25, 0.75], "exit_share", "25.0 75.0"),
        ([1, None, 0.5], "", "1 – 0.5"),
        ({"batch": 1, "top1_pct": 2.0}, "", "batch 1, top1_pct 2.00"),
        ("word", "", "word"),
    ],
)
def test_cell(value: Any, name: str, text: str) -> None:
    assert cell(value, name) == text


names = st.text(st.characters(categories=["L"]), min_size=1, max_size=5)
records = st.dictionaries(
    names, st.none() | st.booleans() | st.integers() | st.floats() | st.text(), min_size=1
)


@given(st.lists(records, min_size=1, max_size=4))
@settings(deadline=None)
def test_any_record_can_be_read_back(rows: list[dict[str, Any]]) -> None:
    def out(form: Any) -> str:
        stream = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdout", stream)
            emit(rows, form)
        return stream.getvalue()

    assert json.loads(out("json")) == plain(rows)
    assert [json.loads(line) for line in out("jsonl").split("\n")[:-1]] == plain(rows)
    header, *lines = csv.reader(io.StringIO(out("csv"), newline=""))
    assert set(header) == {name for row in rows for name in row}
    assert len(lines) == len(rows)
    assert all(len(line) == len(header) for line in lines)
    out("table")
