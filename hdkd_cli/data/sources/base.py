"""What a data set is before it is split: named, labelled images that can be read one by one.

Shape suffixes: N images, H W pixels.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hdkd_cli.choices import Part
from hdkd_cli.data.sources.survey import Found, survey
from hdkd_cli.data.transform import read_image
from hdkd_cli.errors import DataError

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff", ".gif"}
)

"""What names of images end in; of an animated GIF the first picture is read."""

TRAIN_WITHOUT = "mend or remove them, or train without them: --set data.skip_bad=true"
NAMED = 50
"""Bad images that one error names."""


@dataclass(frozen=True)
class Source(ABC):
    """Labelled images.

    Attributes:
        classes: Class names; a label is a place in this tuple.
        keys: One name per image, unique, the same wherever the data lies.
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

    def contents(self, indices: Iterable[int]) -> Sequence[bytes]:
        """A fingerprint of what each of some images shows, 32 bytes.

        Here: of the decoded pixels. A source that knows them without decoding says so.

        Raises:
            DataError: an image cannot be read.
        """
        return [_fingerprint(self.image(i)) for i in indices]


def _fingerprint(image: Image.Image) -> bytes:
    size = "{}x{}".format(*image.size).encode()
    return hashlib.sha256(size + image.tobytes()).digest()


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

    def contents(self, indices: Iterable[int]) -> Sequence[bytes]:
        """Of each image's pixels."""
        return [hashlib.sha256(self.pixels_NHW3[i].tobytes()).digest() for i in indices]


@dataclass(frozen=True)
class FolderSource(Source):
    """Image files; a key is the path from ``root`` on, with forward slashes.

    Attributes:
        root: Where the keys begin.
        cache: Whether what was found out about the files is kept on disk.
        others: How many files of other kinds lie beside them, by what their names end in.
    """

    root: Path
    cache: bool = False
    others: Mapping[str, int] = field(default_factory=dict)

    def image(self, index: int) -> Image.Image:
        return read_image(self.root / self.keys[index])

    @cached_property
    def files(self) -> Sequence[Found]:
        """What is known of each file, once every one has been read."""
        return survey(self.root, self.keys, decode=False, cache=self.cache)

    def contents(self, indices: Iterable[int]) -> Sequence[bytes]:
        """Of each file's bytes."""
        indices = list(indices)
        for i in indices:
            if not any(self.files[i].sha256):
                raise DataError(f"{self.root / self.keys[i]}: {self.files[i].problem}")
        return [self.files[i].sha256 for i in indices]

    def problems(self, *, decode: bool) -> Mapping[int, str]:
        """Every image that cannot be read → why.

        Args:
            decode: Find out by decoding all of them, not by their headers.
        """
        files = self.files
        if decode:
            files = survey(self.root, self.keys, decode=True, cache=self.cache)
        return {i: file.problem for i, file in enumerate(files) if file.problem}

    def refuse_bad(self, *, decode: bool, hint: str = TRAIN_WITHOUT) -> None:
        """Name all images that cannot be read.

        Args:
            decode: See `problems`.
            hint: What to do about them.

        Raises:
            DataError: there are some.
        """
        problems = self.problems(decode=decode)
        if not problems:
            return
        named = [f"{self.root / self.keys[i]}: {why}" for i, why in problems.items()]
        more = [f"and {len(named) - NAMED} more"] if len(named) > NAMED else []
        if len(named) > 1:
            named.insert(0, f"{len(problems)} images cannot be read:")
        raise DataError("\n  ".join([*named[: NAMED + 1], *more]), hint=hint)

    def without(self, keys: Collection[str]) -> Self:
        """The same images but these."""
        left = [i for i, key in enumerate(self.keys) if key not in keys]
        parts: dict[Part, range] = {}
        first = 0
        for part, places in self.parts.items():
            count = sum(i in places for i in left)
            parts[part] = range(first, first + count)
            first += count
        return replace(
            self,
            keys=tuple(self.keys[i] for i in left),
            labels_N=self.labels_N[left],
            parts=parts,
        )
