"""What several benchmarks measure on: networks of presets, random pictures, steps of ``hdkd``.

B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from hdkd_cli.data import Batch, ImageData
from hdkd_cli.data.in_memory import MemoryImages
from hdkd_cli.data.sources.base import ArraySource
from hdkd_cli.data.splits import Split, make_splits
from hdkd_cli.settings.datasets import DATASETS
from hdkd_cli.settings.methods import METHODS
from hdkd_cli.settings.schema import Settings
from hdkd_cli.training.building import build_state
from hdkd_cli.training.compile import compile_step
from hdkd_cli.training.loop import train_stream, val_stream
from hdkd_cli.training.state import TrainState
from hdkd_cli.training.step import new_totals, take_step

CPU = torch.device("cpu")
NETS = {
    "cifar100-msdnet7": ({"name": "msdnet", "exits": 7, "base": 4, "step": 2}, 128),
    "cifar100-small": ({"name": "msdnet", "exits": 5, "base": 1, "step": 1}, 64),
}
"""The model section and the batch size of two presets."""


def cifar_like(settings: Settings, classes: int = 100) -> ImageData:
    """Random pictures in CIFAR's format: 60 per class."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (60 * classes, 32, 32, 3), dtype=np.uint8)
    labels = torch.arange(len(pixels)) % classes
    source = ArraySource.from_parts(
        [f"class {c}" for c in range(classes)],
        (pixels[classes:], labels[classes:]),
        (pixels[:classes], labels[:classes]),
    )
    images = MemoryImages(source, settings.data)
    return ImageData(settings.data, source.classes, make_splits(source, settings.data), images)


def settings_for(
    model: Mapping[str, object],
    batch_size: int,
    method: str,
    *,
    precision: str = "fp32",
    channels_last: bool = False,
    compile: bool = False,
    **weights: object,
) -> Settings:
    """Settings of a network under a training method, for ``cifar_like`` images."""
    return Settings.model_validate(
        METHODS[method]
        | {
            "data": dict(DATASETS["cifar100"].defaults)
            | {"name": "cifar100", "root": ".", "val_per_class": 9, "cache": False},
            "model": model,
            "weights": METHODS[method]["weights"] | weights,
            "training": {
                "batch_size": batch_size,
                "precision": precision,
                "channels_last": channels_last,
                "compile": compile,
            },
        }
    )


def hdkd_loop(
    settings: Settings, data: ImageData | None = None, device: torch.device = CPU
) -> tuple[TrainState, Callable[[], None]]:
    """A training state, and a function that takes one step with weight updates where they are due.

    What training/loop.py does between two records of the losses, at a fixed learning rate, on
    ``cifar_like`` images unless there are others.
    """
    data = data or cifar_like(settings)
    state = build_state(settings, data, device)
    if settings.training.compile:
        compile_step(state)
    batches, val_batches = train_stream(state, data).batches(), val_stream(state, data).batches()
    totals = new_totals(state)

    def step() -> None:
        take_step(state, batches, val_batches, totals)

    return state, step


def fresh_state(
    settings: Settings, classes: int, device: torch.device = CPU
) -> tuple[TrainState, Batch]:
    """A training state, and a batch of random images for it; no image is ever read."""
    names = tuple(f"class {c}" for c in range(classes))
    nothing = ArraySource.from_parts(names, *[(torch.empty(0).numpy(), torch.empty(0))] * 2)
    none = Split("train", torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), str)
    images = MemoryImages(nothing, settings.data)
    data = ImageData(settings.data, names, {"train": none}, images)
    state = build_state(settings, data, device)
    torch.manual_seed(0)
    size, side = settings.training.batch_size, settings.data.image_size
    images = torch.randn(size, 3, side, side, device=device)
    if state.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    return state, Batch(images, torch.randint(classes, (size,), device=device))


def val_part(state: TrainState, batch: Batch) -> Batch:
    """As many images of a batch as an update of the weights reads."""
    size = state.settings.val_batch_size
    return Batch(batch.images[:size], batch.labels[:size])
