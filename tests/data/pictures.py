"""Small picture folders for the tests of data/."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hdkd_cli.data import Batch
from hdkd_cli.data.sources.base import Source
from hdkd_cli.settings.data import DataSettings

CPU = torch.device("cpu")


def noise(seed: int, height: int = 12, width: int = 12) -> Image.Image:
    """A picture no other seed makes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def make_folder(root: Path, counts: Mapping[str, Mapping[str, int]], **size: int) -> Path:
    """Write ``counts[part][class]`` PNG files under ``root``."""
    seed = 0
    for part, classes in counts.items():
        for name, count in classes.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise(seed, **size).save(folder / f"{i:03}.png")
                seed += 1
    return root


def two_classes(root: Path, train: int = 10, test: int = 4) -> Path:
    """A folder of cats and dogs."""
    return make_folder(
        root, {"train": {"cat": train, "dog": train}, "test": {"cat": test, "dog": test}}
    )


def folder_settings(root: Path, **changes: Any) -> DataSettings:
    """Settings for ``root``: 8 pixels per side, no cache, no processes."""
    base = {
        "name": "folder",
        "root": str(root),
        "image_size": 8,
        "resize": 10,
        "augment": "pad-crop",
        "padding": 2,
        "flip": True,
        "val_per_class": 2,
        "cache": False,
        "workers": 0,
    }
    return DataSettings.model_validate(base | changes)


class NamedSource(Source):
    """Names and labels without any pictures."""

    def image(self, index: int) -> Image.Image:  # noqa: ARG002
        raise AssertionError("splits need no pictures")

    def contents(self, indices: Iterable[int]) -> list[bytes]:
        return [self.keys[i].encode() for i in indices]


def named_source(train: Mapping[str, int], test: int = 1, val: int = 0) -> NamedSource:
    """``train[class]`` training images and ``test`` and ``val`` images of each class."""
    keys, labels, parts = [], [], {}
    for part, count_of in (("train", train), ("test", dict.fromkeys(train, test))) + (
        (("val", dict.fromkeys(train, val)),) if val else ()
    ):
        first = len(keys)
        for label, (name, count) in enumerate(count_of.items()):
            keys += [f"{part}/{name}/{i}.png" for i in range(count)]
            labels += [label] * count
        parts[part] = range(first, len(keys))
    return NamedSource(tuple(train), tuple(keys), torch.tensor(labels), parts)


def same(ours: Batch, theirs: Batch) -> bool:
    """Whether two batches hold the same numbers, bit for bit."""
    return torch.equal(ours.images, theirs.images) and torch.equal(ours.labels, theirs.labels)


def rows(images_B3HW: Tensor) -> set[bytes]:
    """The images as hashable values."""
    return {image.contiguous().numpy().tobytes() for image in images_B3HW}
