"""``hdkd import``: a published checkpoint becomes a run that every verb takes."""

import json
from pathlib import Path

import pytest
import torch
from foreign_nets import ForeignMSDNet, ForeignRANet, random_statistics

from hdkd_cli import app
from hdkd_cli.data import open_data
from hdkd_cli.runs.folder import RunFolder

ANY = pytest.CaptureFixture[str]
MSDNET = {
    "exits": 3, "base": 1, "step": 1, "step_mode": "even", "channels": 8, "growth": 4,
    "growth_factors": (1, 2, 4), "bottleneck_factors": (1, 2, 4), "prune": "max",
    "reduction": 0.5, "stem": "cifar", "num_classes": 10,
}  # fmt: skip
RANET = {
    "scales": (1, 2, 3), "growth_factors": (4, 2, 1), "bottleneck_factors": (4, 2, 1), "blocks": 1,
    "block_step": 1, "step": 2, "step_mode": "even", "channels": 8, "growth": 4, "compress": 0.25,
    "reduction": 0.5, "stem": "cifar", "num_classes": 10,
}  # fmt: skip


def options(name: str, arguments: dict[str, object]) -> list[str]:
    """The settings of a network on digits."""
    given = {"name": name, **arguments}
    del given["num_classes"]
    return [
        word
        for key, value in given.items()
        for word in ("--set", f"model.{key}={list(value) if isinstance(value, tuple) else value}")
    ]


@pytest.fixture(scope="module", params=["msdnet", "ranet"])
def imported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """(theirs, the run made of it)"""
    folder = tmp_path_factory.mktemp("import")
    arguments = MSDNET if request.param == "msdnet" else RANET
    torch.manual_seed(0)
    theirs = (ForeignMSDNet if request.param == "msdnet" else ForeignRANet)(**arguments).eval()
    random_statistics(theirs)
    state = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, folder / "theirs.pth.tar")
    words = ["import", str(folder / "theirs.pth.tar"), "--as", "digits"]
    assert app.run([*words, "-o", str(folder / "run"), *options(request.param, arguments)]) == 0
    return theirs, folder / "run"


def test_its_accuracy_is_that_of_their_network(imported, capsys: ANY):
    theirs, path = imported
    assert app.run(["eval-anytime", str(path)]) == 0
    record = json.loads(capsys.readouterr().out)
    data = open_data(RunFolder.open(path).settings().data)
    batches = data.evaluation_batches(
        "test", batch_size=1000, device=torch.device("cpu"), channels_last=False
    )
    batch = next(batches)
    with torch.no_grad():
        prediction_KB = theirs(batch.images).argmax(2)
    correct_K = (prediction_KB == batch.labels).double().mean(1) * 100
    ours_K = [entry["top1_pct"] for entry in record["exits"]]
    assert record["samples"] == len(batch.labels)
    assert ours_K == pytest.approx(correct_K.tolist())


@pytest.mark.slow
def test_every_verb_takes_it(imported, tmp_path: Path, capsys: ANY):
    run = str(imported[1])
    assert app.run(["calibrate", run]) == 0
    assert app.run(["eval-budget", run]) == 0
    assert app.run(["scores", run, "-o", str(tmp_path / "scores.safetensors")]) == 0
    assert app.run(["profile", run, "--seconds", "1", "--batch-size", "4"]) == 0
    assert app.run(["export", run, "--to", "pt2", "-o", str(tmp_path / "out")]) == 0
    assert app.run(["report", run, "-o", str(tmp_path / "report.html")]) == 0
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    page = (tmp_path / "report.html").read_text()
    assert "not finished" not in page


def test_its_classes_are_named_and_its_origin_is_kept(imported):
    info = RunFolder.open(imported[1]).info()
    assert info.classes == tuple("0123456789")
    assert info.status == "finished"
    assert info.imported.file.endswith("theirs.pth.tar")
    assert len(info.imported.sha256) == 64


def test_training_can_begin_from_it_but_not_go_on(imported, tmp_path: Path, capsys: ANY):
    run = str(imported[1])
    assert app.run(["train", "--resume", run]) == 2
    assert "was imported" in capsys.readouterr().err
    words = ["train", "digits", "--init-from", run, "--runs-dir", str(tmp_path)]
    settings = RunFolder.open(imported[1]).settings()
    model = MSDNET if settings.model.name == "msdnet" else RANET
    few = ["--set", "training.max_steps=1", "--set", "data.train_per_class=20"]
    assert app.run([*words, *options(settings.model.name, model), *few]) == 0


def test_what_is_wrong_is_said_before_anything_is_written(tmp_path: Path, capsys: ANY):
    theirs = ForeignMSDNet(**MSDNET)
    path, run = tmp_path / "x.pth", tmp_path / "run"
    torch.save(theirs.state_dict(), path)
    words = ["import", str(path), "-o", str(run), "--as"]
    assert app.run([*words, "digits"]) == 3  # other widths
    assert "of another shape: blocks.0.0.layers.0.net.0.weight" in capsys.readouterr().err
    assert app.run([*words, "cifar100-small"]) == 3
    capsys.readouterr()
    assert app.run([*words, "digitz"]) == 2
    assert app.run(["import", str(tmp_path / "y.pth"), "--as", "digits", "-o", str(run)]) == 3
    assert "y.pth: no such file" in capsys.readouterr().err
    assert not run.exists()
    run.mkdir()
    assert app.run([*words, "digits", *options("msdnet", MSDNET)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_classes_without_images_are_numbers(tmp_path: Path, capsys: ANY):
    torch.save(ForeignMSDNet(**MSDNET).state_dict(), tmp_path / "x.pth")
    words = ["import", str(tmp_path / "x.pth"), "--as", "cifar10-msdnet7"]
    run = tmp_path / "run"
    assert app.run([*words, "-o", str(run), *options("msdnet", MSDNET)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{run}\n"
    assert "--data-dir gives them their names" in captured.err
    assert RunFolder.open(run).info().classes == tuple("0123456789")
    assert app.run(["profile", str(run), "--seconds", "1", "--batch-size", "4"]) == 0
