"""`hdkd train`: what it prints, what it refuses, what it leaves behind."""

import json
import os
import shutil
import tomllib
from pathlib import Path

import pytest
from small_runs import SMALL

from hdkd_cli import app

ANY = pytest.CaptureFixture[str]


def test_stdout_is_the_run_folder_and_nothing_else(tmp_path: Path, capsys: ANY) -> None:
    assert app.run(["train", *SMALL, "--runs-dir", str(tmp_path), "--name", "r"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'r'}\n"
    assert "val %" in captured.err
    run = tmp_path / "r"
    assert {p.name for p in run.iterdir()} >= {
        "settings.toml", "run.json", "metrics.jsonl", "train.log", "checkpoints",
    }  # fmt: skip
    info = json.loads((run / "run.json").read_text())
    assert (info["status"], info["exit_code"], info["seed"]) == ("finished", 0, 0)
    assert {"torch", "torchvision", "hdkd"} <= info["versions"].keys()
    assert "val %" in (run / "train.log").read_text()


def test_quiet_says_nothing(tmp_path: Path, capsys: ANY) -> None:
    assert app.run(["-q", "train", *SMALL, "--runs-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""


def test_dry_run_prints_the_settings_and_trains_nothing(tmp_path: Path, capsys: ANY) -> None:
    assert app.run(["train", *SMALL, "--dry-run", "--runs-dir", str(tmp_path)]) == 0
    settings = tomllib.loads(capsys.readouterr().out)
    assert settings["model"]["exits"] == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "messages"),
    [
        (["--set", "training.epoch=3"], 2, ["training.epoch", "training.epochs"]),
        (["--set", "training.epochs=many"], 2, ["training.epochs", "many"]),
        (
            ["--set", "training.epochs=0", "--set", "modell.exits=3", "--set", "weights.lr=x"],
            2,
            ["training.epochs", "modell.exits", "weights.lr"],
        ),
        (["--set", "method=hdkdd"], 2, ["hdkdd", "naive-dkd"]),
        (["--set", "training.precision=fp16"], 2, ["fp16"]),
        (["--set", "training.batch_size=4096"], 2, ["4096", "batch"]),
        (["--set", "model.reduction=0.01"], 2, ["reduction"]),
        (["--set", "weights.distillation_sum=0"], 2, ["distillation_sum"]),
        (["--device", "quantum"], 2, ["quantum"]),
        (["--config", "nowhere.toml"], 2, ["nowhere.toml"]),
        (["--init-from", "nowhere"], 3, ["nowhere"]),
        (["--set", "data.name=cifar100", "--data-dir", "nowhere"], 3, ["nowhere"]),
        (["--set", "data.name=folder"], 2, ["--data-dir"]),
        (["--resume", "nowhere"], 2, ["--resume"]),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(
    arguments: list[str], code: int, messages: list[str], tmp_path: Path, capsys: ANY
) -> None:
    runs = tmp_path / "runs"
    assert app.run(["train", *SMALL, *arguments, "--runs-dir", str(runs)]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    for message in messages:
        assert message in captured.err
    assert "Traceback" not in captured.err
    assert not runs.exists()


def test_misspelt_environment(tmp_path: Path, capsys: ANY, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDKD_TRAINING__EPOCS", "3")
    assert app.run(["train", *SMALL, "--runs-dir", str(tmp_path / "runs")]) == 2
    assert "epochs" in capsys.readouterr().err


def test_missing_preset_names_the_closest(capsys: ANY) -> None:
    assert app.run(["train", "digitz"]) == 2
    assert "digits" in capsys.readouterr().err


def test_existing_name(trained: Path, capsys: ANY) -> None:
    before = sorted(p.name for p in trained.iterdir())
    arguments = ["--runs-dir", str(trained.parent), "--name", trained.name]
    assert app.run(["train", *SMALL, *arguments]) == 2
    assert "exists already" in capsys.readouterr().err
    assert sorted(p.name for p in trained.iterdir()) == before


def test_resume_goes_on_and_refuses_other_changes(trained: Path, capsys: ANY) -> None:
    assert app.run(["train", "--resume", str(trained), "--set", "optimizer.lr=0.2"]) == 2
    assert "optimizer.lr" in capsys.readouterr().err
    assert app.run(["train", "--resume", str(trained), "--set", "training.max_steps=5"]) == 0
    assert (trained / "checkpoints" / "last").resolve().name == "step-5"
    assert capsys.readouterr().out == f"{trained}\n"


def test_a_run_whose_time_is_up_says_how_to_go_on(tmp_path: Path, capsys: ANY) -> None:
    runs = ["--runs-dir", str(tmp_path)]
    assert app.run(["train", *SMALL, "--set", "training.max_minutes=1e-9", *runs]) == 0
    captured = capsys.readouterr()
    run = Path(captured.out.strip())
    assert f"go on with `hdkd train --resume {run}`" in captured.err.replace("\n", " ")
    assert (run / "checkpoints" / "last").resolve().name == "step-1"
    assert app.run(["train", "--resume", str(run), "--set", "training.max_minutes=none"]) == 0
    assert (run / "checkpoints" / "last").resolve().name == "step-3"
    assert "not finished" not in capsys.readouterr().err


def test_divergence_is_4_and_keeps_the_checkpoint(trained: Path, capsys: ANY) -> None:
    settings = trained / "settings.toml"
    settings.write_text(settings.read_text().replace("lr = 0.1", "lr = 1e30"))
    assert app.run(["train", "--resume", str(trained), "--set", "training.max_steps=9"]) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "step-3" in captured.err
    assert (trained / "checkpoints" / "last").resolve().name == "step-3"


@pytest.mark.parametrize("damage", ["truncate", "tamper", "pickle"])
def test_a_damaged_checkpoint_is_3(trained: Path, capsys: ANY, damage: str) -> None:
    model = trained / "checkpoints" / "step-3" / "model.safetensors"
    whole = model.read_bytes()
    model.write_bytes(
        {"truncate": whole[:100], "tamper": whole[:-1] + b"?", "pickle": b"\x80\x04K\x01."}[damage]
    )
    shutil.rmtree(trained / "scores")
    for verb in (["train", "--resume"], ["eval-anytime"]):
        assert app.run([*verb, str(trained)]) == 3
        captured = capsys.readouterr()
        assert "model.safetensors" in captured.err
        assert captured.out == ""


def test_a_checkpoint_of_another_architecture_is_3(trained: Path, capsys: ANY) -> None:
    settings = trained / "settings.toml"
    settings.write_text(settings.read_text().replace("growth = 4", "growth = 6"))
    shutil.rmtree(trained / "scores")
    assert app.run(["eval-anytime", str(trained)]) == 3
    assert "another network" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_place_for_runs_is_3(tmp_path: Path, capsys: ANY) -> None:
    tmp_path.chmod(0o500)
    assert app.run(["train", *SMALL, "--runs-dir", str(tmp_path / "runs")]) == 3
    assert "Permission denied" in capsys.readouterr().err
