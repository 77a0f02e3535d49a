"""What ``import hdkd_cli`` gives: names, a model that predicts, training, a loop of one's own."""

import importlib.metadata
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from own_loop import fit
from picture_runs import Pictures
from PIL import Image

import hdkd_cli
from hdkd_cli import app, files
from hdkd_cli.errors import DataError, SettingsError, UsageError

ANY = pytest.CaptureFixture[str]
PUBLIC = {
    "Anytime", "BalancedValidation", "Budget", "Comparison", "EarlyExit", "ExitPolicy",
    "HarmonizedWeights", "Harmonizer", "HdkdError", "Model", "MultiExitNet", "Prediction",
    "Profile", "Run", "ScoreFile", "Scores", "Stage", "Term", "TermGroup", "Terms", "__version__",
    "check_network", "compare", "load", "register_confidence", "register_policy", "resume", "train",
}  # fmt: skip


def test_exported_names() -> None:
    assert set(hdkd_cli.__all__) == PUBLIC
    assert hdkd_cli.__all__ == sorted(hdkd_cli.__all__)
    for name in hdkd_cli.__all__:
        found = getattr(hdkd_cli, name)
        assert name == "__version__" or found.__name__ == name
        assert name == "__version__" or found.__doc__
    assert set(dir(hdkd_cli)) == PUBLIC
    assert hdkd_cli.__version__ == importlib.metadata.version("hdkd")
    with pytest.raises(AttributeError, match="nonsense"):
        _ = hdkd_cli.nonsense


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, hdkd_cli; assert not {'torch', 'pydantic', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_knows_itself(pictures: Pictures) -> None:
    run = hdkd_cli.Run.open(pictures.run, device="cpu")
    model = hdkd_cli.load(pictures.run)
    assert model.policy is None
    assert model.classes == run.classes == ("cat", "狗")
    assert model.settings == run.settings
    assert model.net.num_exits == len(model.costs.macs_K) == 3
    assert not model.net.training
    run.calibrate("optimal")
    assert hdkd_cli.load(pictures.run).policy == run.policy("optimal")
    pinned = hdkd_cli.load(pictures.run / "checkpoints" / "last")
    assert torch.equal(next(pinned.net.parameters()), next(model.net.parameters()))


def test_images_of_every_kind_are_the_same(pictures: Pictures) -> None:
    model = hdkd_cli.load(pictures.run, device="cpu")
    path = pictures.data / "test" / "cat" / "00.png"
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    kinds = [str(path), path, image, pixels, pixels.float() / 255]
    predictions = model.predict(kinds)
    assert [p.image for p in predictions] == [str(path), str(path), None, None, None]
    assert len({(p.label, p.exit, p.confidence) for p in predictions}) == 1
    assert model.predict(path) == predictions[:1]
    assert len(model.predict(torch.stack([pixels, pixels]))) == 2
    assert model.predict([]) == []
    prepared = [model.transform(kind) for kind in kinds]
    assert all(torch.equal(one, prepared[0]) for one in prepared)

    logits_KBC = model.logits(kinds)
    assert logits_KBC.shape == (3, 5, 2)
    torch.testing.assert_close(logits_KBC[:, 0], model.net(prepared[0][None])[:, 0].detach())
    assert model.logits([]).shape == (3, 0, 2)
    assert predictions[0].label == logits_KBC[-1, 0].argmax()
    assert predictions[0].exit == 3  # nobody calibrated a policy


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(4, 8, 8, dtype=torch.uint8), "no image"),
        (torch.zeros(3, 8, 8) - 1, "from 0 to 1"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "uint8"),
        ("nowhere.png", "no such file"),
    ],
)
def test_what_is_no_image_is_refused(pictures_once: Pictures, image: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        hdkd_cli.load(pictures_once.run).predict([image])


def test_model_and_verb_agree(pictures: Pictures, capsys: ANY) -> None:
    hdkd_cli.Run.open(pictures.run).calibrate("optimal")
    folder = pictures.data / "test"
    model = hdkd_cli.load(pictures.run)
    paths = sorted(str(p) for p in folder.rglob("*.png"))
    assert app.run(["predict", str(pictures.run), str(folder), "--budget", "0.9"]) == 0
    printed = capsys.readouterr().out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", sys.stdout)
        from hdkd_cli.ui.output import emit

        emit(model.predict(paths, budget=0.9), "jsonl")
    assert capsys.readouterr().out == printed
    assert "狗" in printed
    with pytest.raises(UsageError, match="budget"):
        model.predict(paths, budget=7)


def test_train_predict_calibrate_evaluate_from_python_alone(tmp_path: Path) -> None:
    events: list[object] = []
    small = {
        "model.exits": 2, "model.channels": 8, "model.growth": 4, "training.batch_size": 16,
        "data.train_per_class": 10, "data.val_per_class": 5, "training.max_steps": 2,
        "weights.interval": 2, "method": "hdkd", "model.growth_factors": (1, 2, 4),
    }  # fmt: skip
    run = hdkd_cli.train(
        "digits", set=small, sinks=[events.append], runs_dir=tmp_path, name="r", device="cpu"
    )
    assert {type(event).__name__ for event in events} >= {"RunStarted", "RunEnded"}
    assert run.path == tmp_path / "r"
    assert run.calibrate().kind == "geometric"
    assert run.evaluate().best.top1_pct <= 100
    assert run.anytime("val").samples == 50
    assert len(hdkd_cli.load(run.path).predict(torch.zeros(2, 3, 32, 32), budget=1)) == 2

    first = files.sha256_file(run.path / "checkpoints" / "last" / "model.safetensors")
    again = hdkd_cli.resume(run.path, set={"training.max_steps": 4})
    assert files.sha256_file(again.path / "checkpoints/last/model.safetensors") != first
    assert again.folder.checkpoint().step == 4
    with pytest.raises(SettingsError, match=r"cannot change optimizer\.lr"):
        hdkd_cli.resume(run.path, set={"optimizer.lr": 1.0})
    with pytest.raises(SettingsError, match=r"training\.epoch"):
        hdkd_cli.train(set={"training.epoch": 3}, runs_dir=tmp_path)


def test_a_loop_of_ones_own(pictures_once: Pictures) -> None:
    run = hdkd_cli.Run.open(pictures_once.run, device="cpu")
    net = run.network().train()
    of_val = run.images.evaluation_batches("val", batch_size=6, device=run.where)
    of_test = run.images.evaluation_batches("test", batch_size=8, device=run.where)
    batches = [(batch.images, batch.labels) for batch in of_test]
    weights_T = fit(net, batches, [(b.images, b.labels) for b in of_val], steps=4)
    assert weights_T.shape == (3 + 3,)  # three exits, three pairs of student and teacher
    assert bool((weights_T > 0).all())
    assert len(weights_T.unique()) > 2  # learned


def test_the_script_that_uses_python_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: ANY
) -> None:
    """tests/python_alone.py, on networks small enough for a test."""
    small = {
        "model.exits": 2, "model.channels": 8, "model.growth": 4, "training.batch_size": 16,
        "data.train_per_class": 10, "data.val_per_class": 5, "training.max_steps": 2,
        "weights.interval": 2,
    }  # fmt: skip
    train = hdkd_cli.train
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        hdkd_cli,
        "train",
        lambda preset, set, **more: train(preset, set={**small, **set}, **more),
        raising=False,
    )
    runpy.run_path(str(Path(__file__).parents[1] / "python_alone.py"))
    printed = capsys.readouterr().out
    assert "exit" in printed
    assert "exit 1" in printed
    assert len(list((tmp_path / "runs").iterdir())) == 2
