"""What a data set is before it is split: named, labelled images that can be read one by one.

Shape suffixes: N images, H W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hdkd_cli.choices import Part
from hdkd_cli.data.transform import read_image

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})


@dataclass(frozen=True)
class Source(ABC):
    """Labelled images.

    Attributes:
        classes: Class names; a label is a place in this tuple.
        keys: One name an image, unique, the same wherever the data lies.
        labels_N: int64.
        parts: Which images the data set itself calls train, val (if it has any) and test.
    """

    classes: tuple[str, ...]
    keys: tuple[str, ...]
    labels_N: Tensor
    parts: Mapping[Part, range]

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """Image ``index`` in RGB, as large as it is.

        Raises:
            DataError: it cannot be read.
        """


@dataclass(frozen=True)
class ArraySource(Source):
    """Images that are already decoded: uint8 RGB, all of one size."""

    pixels_NHW3: NDArray[np.uint8]

    @classmethod
    def from_parts(
        cls,
        classes: Sequence[str],
        train: tuple[NDArray[np.uint8], Tensor],
        test: tuple[NDArray[np.uint8], Tensor],
    ) -> Self:
        """Put together (pixels_NHW3, labels_N) of the two parts; keys are their numbers."""
        counts = {"train": len(train[1]), "test": len(test[1])}
        return cls(
            classes=tuple(classes),
            keys=tuple(f"{part}/{i:05}" for part, count in counts.items() for i in range(count)),
            labels_N=torch.cat([train[1], test[1]]),
            parts={
                "train": range(counts["train"]),
                "test": range(counts["train"], sum(counts.values())),
            },
            pixels_NHW3=np.concatenate([train[0], test[0]]),
        )

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels_NHW3[index])


@dataclass(frozen=True)
class FolderSource(Source):
    """Image files; a key is the path from ``root`` on, with forward slashes."""

    root: Path

    def image(self, index: int) -> Image.Image:
        return read_image(self.root / self.keys[index])
