"""Which images train, validate, are held in reserve and test.

Within a class, images are put in order by the SHA-256 of (split seed, key). The first are for
validation, the next for training, the rest in reserve. So the validation images of a seed are the
same however many images train, on every machine and with every version of every library.

Shape suffix: N images of a split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import torch
from torch import Tensor

from hdkd_cli.choices import Part, Role
from hdkd_cli.data.given import given_indices
from hdkd_cli.data.sources.base import Source
from hdkd_cli.errors import DataError, SettingsError
from hdkd_cli.files import sha256_bytes
from hdkd_cli.settings.data import DataSettings


@dataclass(frozen=True)
class Split:
    """The images of one role, in the order of the source.

    Attributes:
        role: What they are for.
        indices_N: Places in the source, int64, ascending.
        labels_N: int64.
        fingerprint: Computes ``sha256``, for which all images may have to be read.
    """

    role: Role
    indices_N: Tensor
    labels_N: Tensor
    fingerprint: Callable[[], str]

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of the images' keys, labels and contents, and of the classes' names.

        Raises:
            DataError: an image cannot be read.
        """
        return self.fingerprint()

    def __len__(self) -> int:
        return len(self.indices_N)


def make_splits(source: Source, settings: DataSettings) -> dict[Role, Split]:
    """Give every image its role; every role is there, ``calibration`` and ``reserve`` maybe empty.

    Raises:
        DataError: a class has too few images.
        SettingsError: validation images are asked for, and there is a ``val/`` folder too.
    """
    for key in ("val_per_class", "val_indices"):
        value = getattr(settings, key)
        if "val" in source.parts and value is not None:
            raise SettingsError(
                f"data.{key} = {value} holds validation images out of the training images, but "
                "there is a val/ folder too",
                hint="drop one of them",
            )
    train_by_class = _by_class(source, "train", settings.split_seed)
    chosen: dict[Role, list[int]] = {role: [] for role in get_args(Role)}
    chosen["test"].extend(source.parts["test"])
    if "val" in source.parts:
        val_by_class = _by_class(source, "val", settings.split_seed)
    elif settings.val_indices is not None:
        given = given_indices(source, settings)
        val_by_class = [[i for i in images if i in given] for images in train_by_class]
        train_by_class = [[i for i in images if i not in given] for images in train_by_class]
    else:
        val_by_class = [
            images[: _validation_count(source.classes[label], len(images), settings)]
            for label, images in enumerate(train_by_class)
        ]
        train_by_class = [
            images[len(val) :] for images, val in zip(train_by_class, val_by_class, strict=True)
        ]
    for name, train, val in zip(source.classes, train_by_class, val_by_class, strict=True):
        calibration_count = _calibration_count(name, len(val), settings)
        chosen["calibration"].extend(val[:calibration_count])
        chosen["val"].extend(val[calibration_count:])
        wanted = settings.train_per_class or len(train)
        if len(train) < wanted:
            raise DataError(
                f"class {name!r} has {len(train)} training images left beside those for "
                f"validation; data.train_per_class asks for {wanted}"
            )
        chosen["train"].extend(train[:wanted])
        chosen["reserve"].extend(train[wanted:])
    return {role: _split(source, role, indices) for role, indices in chosen.items()}


def _by_class(source: Source, part: Part, seed: int) -> list[list[int]]:
    """The part's images of each class, in the order the seed gives them."""
    images: list[list[int]] = [[] for _ in source.classes]
    first, stop = source.parts[part].start, source.parts[part].stop
    for index, label in enumerate(source.labels_N[first:stop].tolist(), first):
        images[label].append(index)

    def place(index: int) -> bytes:
        return hashlib.sha256(
            f"{seed}\0{source.keys[index]}".encode(errors="surrogateescape")
        ).digest()

    return [sorted(of_class, key=place) for of_class in images]


def _validation_count(name: str, available: int, settings: DataSettings) -> int:
    count = max(1, available // 10) if settings.val_per_class is None else settings.val_per_class
    if count >= available:
        raise DataError(
            f"class {name!r} has {available} training images, too few to hold out {count} for "
            "validation and train on the rest (data.val_per_class)"
        )
    return count


def _calibration_count(name: str, available: int, settings: DataSettings) -> int:
    if settings.calibration_fraction == 0:
        return 0
    count = max(1, round(settings.calibration_fraction * available))
    if count >= available:
        raise DataError(
            f"class {name!r} has {available} validation images, too few to set "
            f"{settings.calibration_fraction:g} of them aside (data.calibration_fraction)"
        )
    return count


def _split(source: Source, role: Role, indices: Iterable[int]) -> Split:
    indices_N = torch.tensor(sorted(indices), dtype=torch.int64)
    return Split(
        role, indices_N, source.labels_N[indices_N], lambda: fingerprint(source, indices_N)
    )


def fingerprint(source: Source, indices_N: Tensor) -> str:
    """SHA-256 over the class names, and key, label and content of some images.

    Raises:
        DataError: an image cannot be read.
    """
    indices, labels = indices_N.tolist(), source.labels_N[indices_N].tolist()
    lines = (
        f"{source.keys[index]}\0{label}\0{content.hex()}\n"
        for index, label, content in zip(indices, labels, source.contents(indices), strict=True)
    )
    classes = "\0".join(source.classes)
    return sha256_bytes(
        *(text.encode(errors="surrogateescape") for text in (f"{classes}\n", *lines))
    )
