"""`hdkd train --resume`: what was saved is gone on from, or nothing is touched."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_runs import small_settings

from hdkd_cli import app
from hdkd_cli.data import open_data
from hdkd_cli.errors import RunError
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.training.events import Event, StepLogged
from hdkd_cli.training.session import run_training

ANY = pytest.CaptureFixture[str]


def removed(checkpoints: Path) -> None:
    shutil.rmtree(checkpoints)


def emptied(checkpoints: Path) -> None:
    shutil.rmtree(checkpoints)
    checkpoints.mkdir()


def moved_behind_a_link(checkpoints: Path) -> None:
    shutil.rmtree(checkpoints)
    checkpoints.symlink_to("/nowhere/checkpoints")


def only_the_link_left(checkpoints: Path) -> None:
    shutil.rmtree(checkpoints / "step-3")


def damaged(checkpoints: Path) -> None:
    (checkpoints / "step-3" / "manifest.json").write_text("{}")


@pytest.mark.parametrize(
    "loss", [removed, emptied, moved_behind_a_link, only_the_link_left, damaged]
)
def test_what_was_saved_is_not_replaced_by_a_new_start(
    trained: Path, capsys: ANY, loss: Callable[[Path], None]
) -> None:
    loss(trained / "checkpoints")
    kept = {name: (trained / name).read_bytes() for name in ("metrics.jsonl", "run.json")}
    assert app.run(["train", "--resume", str(trained)]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "checkpoints" in captured.err
    assert "hint: " in captured.err
    assert "--restart" in captured.err
    assert kept == {name: (trained / name).read_bytes() for name in kept}


def test_starting_again_needs_a_word(trained: Path, capsys: ANY) -> None:
    moved_behind_a_link(trained / "checkpoints")
    assert app.run(["train", "--resume", str(trained), "--restart"]) == 0
    assert (trained / "checkpoints" / "last").resolve() == trained / "checkpoints" / "step-3"
    started = json.loads((trained / "metrics.jsonl").read_text().splitlines()[0])
    assert (started["event"], started["first_step"]) == ("run_started", 0)


def test_restart_goes_with_resume(capsys: ANY) -> None:
    assert app.run(["train", "--restart"]) == 2
    assert "--resume" in capsys.readouterr().err


def test_an_older_checkpoint_keeps_the_newer_ones(trained: Path, capsys: ANY) -> None:
    older, newer = (trained / "checkpoints" / f"step-{n}" for n in (3, 5))
    further = ["train", "--resume", str(trained), "--set", "training.max_steps=5"]
    # what a resume may change besides
    further += ["--set", "data.workers=0", "--set", "training.log_every=1"]
    assert app.run(further) == 0
    capsys.readouterr()
    assert app.run(["train", "--resume", str(older)]) == 2
    error = capsys.readouterr().err
    assert "step-5" in error
    assert "--restart" in error
    assert newer.is_dir()

    (newer / "manifest.json").write_text("damaged")
    shutil.rmtree(trained / "scores")
    for verb in (["train", "--resume"], ["eval-anytime"]):
        assert app.run([*verb, str(trained)]) == 3
        captured = capsys.readouterr()
        assert captured.out == ""
        assert f"the one before it is whole: {older}" in captured.err
    assert app.run(["eval-anytime", str(older)]) == 0

    back = ["train", "--resume", str(older), "--restart", "--set", "training.max_steps=4"]
    assert app.run(back) == 0
    assert {p.name for p in (trained / "checkpoints").iterdir()} == {"last", "step-3", "step-4"}


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "train.log"])
def test_a_link_in_a_run_does_not_reach_its_target(
    trained: Path, tmp_path: Path, capsys: ANY, name: str
) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    (trained / name).unlink(missing_ok=True)
    (trained / name).symlink_to(target)
    arguments = ["train", "--resume", str(trained), "--set", "training.max_steps=4"]
    assert app.run(arguments) == 3
    assert f"{trained / name}: is a link" in capsys.readouterr().err
    assert target.read_text() == "kept"


def test_a_run_that_is_moved_while_it_trains_leaves_no_second_folder(tmp_path: Path) -> None:
    settings = small_settings()
    run = RunFolder.create(tmp_path, "test", settings)
    elsewhere = tmp_path / "elsewhere"

    def move(event: Event) -> None:
        if isinstance(event, StepLogged) and run.path.exists():
            run.path.rename(elsewhere)

    with pytest.raises(RunError, match="moved or removed while it trained"):
        run_training(run, settings, open_data(settings.data), torch.device("cpu"), sinks=[move])
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
