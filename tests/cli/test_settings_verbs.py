"""`hdkd settings show` and `hdkd settings schema`."""

import json
import tomllib
from pathlib import Path

import pytest

from hdkd_cli.app import run
from hdkd_cli.settings import presets
from hdkd_cli.settings.layers import resolve
from hdkd_cli.settings.schema import Settings
from hdkd_cli.settings.toml import from_toml

Captured = pytest.CaptureFixture[str]


def test_show_is_what_a_run_would_use(capsys: Captured) -> None:
    assert run(["settings", "show"]) == 0
    captured = capsys.readouterr()
    assert from_toml(captured.out) == resolve(presets.DEFAULT).settings
    assert f'name = "digits" # preset {presets.DEFAULT}\n' in captured.out
    assert captured.err == ""


def test_all_layers_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[training]\nepochs = 7\n")
    monkeypatch.setenv("HDKD_DATA__WORKERS", "0")
    options = ["cifar100-small", "--config", str(config), "--set", "method=joint"]
    options += ["--set", "model.growth_factors=1,2,4", "--seed", "3", "--device", "cpu"]
    options += ["--data-dir", "/d", "--download", "--format", "json"]
    assert run(["settings", "show", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "hdkd/resolved/1"
    assert found["notes"] == []
    settings = Settings.model_validate(found["settings"])
    assert settings.training.epochs == 7
    expected = {
        "data.name": "preset cifar100-small",
        "data.mean": "dataset",
        "training.epochs": f"file {config}",
        "data.workers": "environment HDKD_DATA__WORKERS",
        "weights.learned": "--set method=joint",
        "model.growth_factors": "--set",
        "training.seed": "--seed",
        "training.device": "--device",
        "data.root": "--data-dir",
        "data.download": "--download",
        "optimizer.momentum": "default",
    }
    assert found["origin"] | expected == found["origin"]


def test_notes_are_part_of_the_record(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDKD_DATA__TRAIN_PER_CLASS", "100")
    change = ["settings", "show", "cifar100-small", "--set", "data.name=digits"]
    assert run([*change, "--format", "json"]) == 0
    captured = capsys.readouterr()
    notes = json.loads(captured.out)["notes"]
    assert any(
        note.startswith("data.train_per_class = 100 (environment HDKD_DATA__TRAIN_PER_CLASS)")
        for note in notes
    )
    assert captured.err == ""
    assert run(change) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [f"note: {note}" for note in notes]
    tomllib.loads(captured.out)


def test_all_mistakes_are_told_at_once(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("HDKD_SEED", "1")
    wrong = ["--set", "data.flipp=1", "--set", "training.epochs=x", "--config", "nosuch.toml"]
    assert run(["settings", "show", *wrong]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    heading, *lines = captured.err.splitlines()
    assert heading == "error: 4 settings are wrong:"
    assert [line.split()[0] for line in lines] == [
        "nosuch.toml:",
        "HDKD_SEED",
        "data.flipp",
        "training.epochs",
    ]


def test_unknown_preset(capsys: Captured) -> None:
    assert run(["settings", "show", "digts"]) == 2
    assert "no such preset\nhint: closest: digits" in capsys.readouterr().err


def test_schema_describes_every_section(capsys: Captured) -> None:
    assert run(["settings", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["properties"]) == set(Settings.model_fields)
    assert schema["$defs"]["TrainingSettings"]["properties"]["epochs"]["default"] == 30
    # what marks in descriptions mean, and where the pages are that they name
    page, docs = "concepts/method.md", Path(schema["$comment"].rpartition(" ")[2])
    assert f"docs/{page}, section 6" in schema["$comment"]
    assert "\n## 6. What the paper leaves open\n" in (docs / page).read_text()
