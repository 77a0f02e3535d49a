"""`hdkd train` on a folder of images: what it says of them, bad ones, a resume on other ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdkd_cli import app

ANY = pytest.CaptureFixture[str]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of noise: 16 images to train on and 4 to test each, 12×12 pixels."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 16), ("test", 4)):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return tmp_path / "images"


def train(images: Path, *assignments: str) -> list[str]:
    """Arguments of a run of two steps."""
    chosen = [
        "data.name=folder", "data.image_size=8", "data.workers=0", "model.exits=2",
        "model.channels=8", "model.growth=4", "model.growth_factors=[1]",
        "model.bottleneck_factors=[1]", "training.batch_size=8", "training.max_steps=2",
        "weights.interval=2", "training.device=cpu", *assignments,
    ]  # fmt: skip
    sets = [argument for assignment in chosen for argument in ("--set", assignment)]
    runs = str(images.parent / "runs")
    return ["train", *sets, "--data-dir", str(images), "--runs-dir", runs, "--name", "r"]


def test_a_dry_run_says_what_it_found(images: Path, capsys: ANY) -> None:
    assert app.run([*train(images), "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "2 classes; images: 30 train, 2 val, 8 test" in said
    assert "images are resized to 9 pixels on their shorter side" in said


def test_bad_images_end_a_run_before_it_begins(images: Path, capsys: ANY) -> None:
    for name in ("03.png", "07.png"):
        (images / "train" / "dog" / name).write_text("no image")
    assert app.run(train(images)) == 3
    said = capsys.readouterr().err
    assert "2 images cannot be read" in said
    assert all(name in said for name in ("03.png", "07.png", "data.skip_bad=true"))
    assert not (images.parent / "runs").exists()


def test_a_run_without_bad_images_records_and_keeps_them_out(images: Path, capsys: ANY) -> None:
    bad = images / "train" / "dog" / "03.png"
    content = bad.read_bytes()
    bad.write_text("no image")
    assert app.run(train(images, "data.skip_bad=true")) == 0
    run = images.parent / "runs" / "r"
    info = json.loads((run / "run.json").read_text())
    assert list(info["skipped"]) == ["train/dog/03.png"]
    assert "not a readable image" in info["skipped"]["train/dog/03.png"]
    bad.write_bytes(content)
    resume = ["train", "--resume", str(run), "--set"]
    assert app.run([*resume, "training.max_steps=3"]) == 0
    assert app.run(["eval-anytime", str(run), "--split", "val"]) == 0
    bad.unlink()
    assert app.run([*resume, "training.max_steps=4"]) == 0
    assert list(json.loads((run / "run.json").read_text())["skipped"]) == ["train/dog/03.png"]


def test_other_images_under_the_same_names_are_refused(images: Path, capsys: ANY) -> None:
    assert app.run(train(images)) == 0
    run = images.parent / "runs" / "r"
    assert app.run(["eval-anytime", str(run)]) == 0
    for part in ("train", "test"):
        (images / part / "cat").rename(images / part / "x")
        (images / part / "dog").rename(images / part / "cat")
        (images / part / "x").rename(images / part / "dog")
    capsys.readouterr()
    assert app.run(["train", "--resume", str(run), "--set", "training.max_steps=3"]) == 3
    assert "differs" in capsys.readouterr().err


def test_every_image_can_train_where_nothing_reads_validation_images(
    images: Path, capsys: ANY
) -> None:
    none = ["data.val_per_class=0", "method=joint"]
    assert app.run([*train(images, *none), "--tensorboard"]) == 0
    run = images.parent / "runs" / "r"
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert events[0]["samples"]["train"] == 32
    assert "evaluated" not in {event["event"] for event in events}
    assert app.run(["eval-anytime", str(run)]) == 0
    assert app.run(["report", str(run), "-o", str(run / "report.html")]) == 0
    capsys.readouterr()
    assert app.run(["calibrate", str(run)]) == 3
    assert "val split is empty" in capsys.readouterr().err
