"""How fast large images are read, and how long a step waits for them.

    python benchmarks/pipeline.py [--images 2000 --workers 0 1 2 --trials 3]

Makes JPEGs of photographs' size and compressibility (smooth noise, 224 to 500 pixels a side) in a
temporary folder and reads all of them once, from the start of the workers to the last batch: with
``hdkd``'s own loader and, in turn with it, with torchvision's ImageFolder and a DataLoader written
the usual way. Both end with normalised float32 images of 224 pixels. Then a few training steps of
``imagenet-msdnet5-step4`` on this CPU, fed by ``hdkd``'s loader: the share of their time spent
waiting for images. Writes benchmarks/results/pipeline.json.

B batch, S pixels a side.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from claims import finish
from harness import CPU, in_turn, options, spread
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from hdkd_cli.data import ImageData, open_data
from hdkd_cli.data.workers import cpu_count
from hdkd_cli.settings.data import DataSettings
from hdkd_cli.settings.layers import resolve
from hdkd_cli.settings.schema import Settings
from hdkd_cli.training.building import build_state
from hdkd_cli.training.step import new_totals, train_step

TARGET_SPEED = 0.95
"""Images/s of hdkd over torchvision's, at least: no slower."""
TARGET_WAITING = 0.05
"""Share of a training step spent waiting for images, at most."""
CLASSES = 10
JPEG_QUALITY = 90
TRANSFORMS = ("train", "evaluation")


def smooth_noise(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """A picture that compresses about as a photograph does: noise of many scales."""
    pixels = np.full((height, width, 3), 128.0)
    for cells in (3, 6, 12, 24, 48, 96, 192):
        for colour in range(3):
            grid = generator.standard_normal((cells, cells), dtype=np.float32)
            layer = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
            pixels[:, :, colour] += 100 / cells**0.3 * np.asarray(layer)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def make_jpegs(root: Path, images: int, sides: tuple[int, int] = (224, 500)) -> dict[str, float]:
    """``root/train`` with ``images`` JPEGs in ``CLASSES`` classes, and a small ``root/test``.

    Returns:
        Their mean size in kB and in pixels.
    """
    generator = np.random.default_rng(0)
    sizes, areas = [], []
    for part, count in (("train", images), ("test", CLASSES)):
        for i in range(count):
            folder = root / part / f"class-{i % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            width, height = generator.integers(sides[0], sides[1], 2, endpoint=True)
            path = folder / f"{i:05}.jpg"
            smooth_noise(generator, int(width), int(height)).save(path, quality=JPEG_QUALITY)
            sizes.append(path.stat().st_size)
            areas.append(int(width * height))
    return {"mean_kB": float(np.mean(sizes)) / 1e3, "mean_pixels": float(np.mean(areas))}


def settings_of(root: Path, workers: int) -> DataSettings:
    """The settings that ``--set data.name=folder`` gives; every class keeps one image for val."""
    assignments = ["data.name=folder", "data.val_per_class=1", f"data.workers={workers}"]
    flags = {"--data-dir": root}
    return resolve(environment={}, assignments=assignments, flags=flags).settings.data


def ours(settings: DataSettings, transform: str, batch_size: int) -> Callable[[], int]:
    """A function that reads the training images once; returns how many it read."""
    data = open_data(settings)

    def read() -> int:
        if transform == "evaluation":
            return _count(
                data.evaluation_batches(
                    "train", batch_size=batch_size, device=CPU, channels_last=False
                )
            )
        stream = data.train_stream(batch_size=batch_size, seed=0, device=CPU, channels_last=False)
        # one epoch: a stream goes on for ever, and its workers begin the next while the last batch
        # of this one is awaited
        epoch = itertools.islice(stream.order.requests(0), stream.steps_per_epoch)
        return _count(stream.images.batches(epoch, augment=True, device=CPU, channels_last=False))

    return read


def usual(settings: DataSettings, transform: str, batch_size: int) -> Callable[[], int]:
    """The same with torchvision."""
    crop: list[Callable] = [
        transforms.RandomResizedCrop(settings.image_size),
        transforms.RandomHorizontalFlip(),
    ]
    if transform == "evaluation":
        crop = [
            transforms.Resize(settings.shorter_side),
            transforms.CenterCrop(settings.image_size),
        ]
    finish = [transforms.ToTensor(), transforms.Normalize(settings.mean, settings.std)]
    assert settings.root is not None
    images = datasets.ImageFolder(
        str(Path(settings.root) / "train"), transforms.Compose([*crop, *finish])
    )
    train = transform == "train"
    loader = DataLoader(
        images, batch_size, shuffle=train, drop_last=train, num_workers=settings.workers
    )
    return lambda: _count(loader)


def _count(batches: Iterable[Sequence[torch.Tensor]]) -> int:
    return sum(len(labels) for _, labels in batches)


def measure_reading(
    root: Path, workers: int, transform: str, batch_size: int, trials: int
) -> dict[str, object]:
    """Images/s of both with one number of workers."""
    settings = settings_of(root, workers)
    counts: dict[str, int] = {}

    def counted(name: str, read: Callable[[], int]) -> Callable[[], None]:
        def run() -> None:
            counts[name] = read()

        return run

    seconds = in_turn(
        {
            "usual": counted("usual", usual(settings, transform, batch_size)),
            "hdkd": counted("hdkd", ours(settings, transform, batch_size)),
        },
        trials=trials,
        warmup=0,  # the files were written a moment ago: they are in memory
    )
    rates = {name: [counts[name] / t for t in times] for name, times in seconds.items()}
    return {
        "transform": transform,
        "workers": workers,
        "images": counts,
        "images_per_s": {name: spread(values) for name, values in rates.items()},
        "images_per_s_and_worker": spread([r / max(workers, 1) for r in rates["hdkd"]]),
        "speed": spread([a / b for a, b in zip(rates["hdkd"], rates["usual"], strict=True)]),
    }


def waiting(settings: Settings, data: ImageData, steps: int) -> dict[str, object]:
    """Where the time of some training steps goes; the first batch, with the start of the workers,
    and the first step do not count."""
    state = build_state(settings, data, CPU)
    size = settings.training.batch_size
    batches = data.train_stream(
        batch_size=size, seed=0, device=CPU, channels_last=state.channels_last
    ).batches()
    totals = new_totals(state)
    waited, computed = [], []
    for _ in range(1 + steps):
        began = time.perf_counter()
        batch = next(batches)
        ready = time.perf_counter()
        train_step(state, [batch], totals)
        waited.append(ready - began)
        computed.append(time.perf_counter() - ready)
    shares = [w / (w + c) for w, c in zip(waited[1:], computed[1:], strict=True)]
    return {
        "batch": size,
        "workers": settings.data.workers,
        "steps": steps,
        "images_per_s": size * steps / (sum(waited[1:]) + sum(computed[1:])),
        "waiting_share": spread(shares),
    }


def imagenet_like(root: Path, workers: int, batch_size: int) -> Settings:
    """The preset's network on the generated images."""
    preset = resolve("imagenet-msdnet5-step4", environment={}, flags={"--data-dir": root}).settings
    training = {"batch_size": batch_size, "precision": "fp32"}
    return preset.model_copy(
        update={
            "data": settings_of(root, workers),
            "training": preset.training.model_copy(update=training),
        }
    )


def main() -> None:
    """Measure, write the record, print what it says."""
    # hdkd starts no more workers than there are cores, and torchvision warns
    workers = [count for count in (0, 1, 2, 4) if count <= cpu_count()]
    given = options(
        __doc__, images=2000, batch=32, workers=workers, trials=3, steps=6, step_batch=8
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        made = make_jpegs(root, given.images + CLASSES)
        rows = [
            measure_reading(root, count, transform, given.batch, given.trials)
            for transform in TRANSFORMS
            for count in given.workers
        ]
        settings = imagenet_like(root, min(1, max(given.workers)), given.step_batch)
        wait = waiting(settings, open_data(settings.data), given.steps)
    finish(
        "pipeline",
        "reading generated JPEGs as folder data: images/s, and what a training step waits",
        device=str(CPU),
        images=given.images,
        jpegs=made,
        batch=given.batch,
        trials=given.trials,
        target_speed=TARGET_SPEED,
        target_waiting=TARGET_WAITING,
        rows=rows,
        waiting=wait,
    )


if __name__ == "__main__":
    main()
