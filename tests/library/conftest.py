"""A run on a folder of pictures, trained once for three steps."""

import contextlib
import io
import shutil
from pathlib import Path

import pytest
from picture_runs import Pictures, write_pictures

from hdkd_cli import app


@pytest.fixture(scope="session")
def pictures_once(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    base = tmp_path_factory.mktemp("pictures")
    data = write_pictures(base / "data", {"train": 20, "test": 8})
    arguments = [
        *("--set", "data.name=folder", "--set", "data.image_size=20", "--set", "data.resize=20"),
        *("--set", "data.augment=none", "--set", "data.workers=0", "--set", "data.cache=false"),
        *("--set", "data.val_per_class=6", "--set", "data.calibration_fraction=0.5"),
        *("--set", "model.exits=3", "--set", "model.channels=8", "--set", "model.growth=4"),
        *("--set", "training.batch_size=8", "--set", "training.max_steps=3"),
        *("--set", "weights.interval=2", "--set", "weights.val_batch_size=6"),
        *("--device", "cpu", "--data-dir", str(data)),
    ]
    talk = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(talk):
        runs = str(base / "runs")
        code = app.run(["train", "digits", *arguments, "--runs-dir", runs, "--name", "r"])
    assert code == 0, talk.getvalue()
    return Pictures(base / "runs" / "r", data)


@pytest.fixture
def pictures(pictures_once: Pictures, tmp_path: Path) -> Pictures:
    """A copy of both that a test may damage."""
    run = shutil.copytree(pictures_once.run, tmp_path / "runs" / "copy", symlinks=True)
    data = shutil.copytree(pictures_once.data, tmp_path / "data")
    settings = run / "settings.toml"
    settings.write_text(settings.read_text().replace(str(pictures_once.data), str(data)))
    return Pictures(run, data)
