"""`hdkd presets list|show|copy`."""

import csv
import io
import json
from pathlib import Path

import pytest

from hdkd_cli.app import run
from hdkd_cli.settings import presets

Captured = pytest.CaptureFixture[str]


def test_list(capsys: Captured) -> None:
    assert run(["presets", "list"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["schema"] == "hdkd/presets/1"
    assert [row["name"] for row in record["presets"]] == presets.names()
    assert {row["status"] for row in record["presets"]} <= {"starter", "reproduced"}

    assert run(["presets", "list", "--format", "jsonl"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == record["presets"]
    assert run(["presets", "list", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["summary"] for row in rows] == [row["summary"] for row in record["presets"]]
    assert run(["presets", "list", "--format", "table"]) == 0
    table = capsys.readouterr().out
    assert all(row["summary"] in table for row in record["presets"])


def test_show_is_the_file(capsys: Captured) -> None:
    assert run(["presets", "show", "digits"]) == 0
    assert capsys.readouterr().out == presets.find("digits").read_text(encoding="utf-8")
    assert run(["presets", "show", "digit"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "closest: digits" in captured.err


def test_copy(tmp_path: Path, capsys: Captured) -> None:
    target = tmp_path / "mine.toml"
    assert run(["presets", "copy", "digits", str(target)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    target.write_text("edited")
    assert run(["presets", "copy", "digits", str(target)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"error: {target}: is there already\nhint: --force replaces it\n"
    assert target.read_text() == "edited"
    assert run(["presets", "copy", "digits", str(target), "--force"]) == 0
    assert target.read_bytes() == presets.find("digits").read_bytes()
