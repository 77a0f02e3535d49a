"""Labelled images from anywhere, seen as a run sees its own: field data, corruptions, a newer test
set."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from hdkd_cli.data.order import Batch, Request
from hdkd_cli.data.sources.base import FolderSource
from hdkd_cli.data.sources.folders import class_folders, images_below
from hdkd_cli.data.splits import fingerprint
from hdkd_cli.data.workers import LoadedImages
from hdkd_cli.errors import DataError
from hdkd_cli.settings.data import DataSettings
from hdkd_cli.settings.transform import describe


def open_labelled(
    folder: Path, settings: DataSettings, classes: Sequence[str], *, skip_bad: bool = False
) -> LabelledImages:
    """List the images in ``folder/<class>/``, to any depth; not all classes have to be there.

    Args:
        folder: Holds one folder per class.
        settings: How images are transformed and read: a run's.
        classes: Class names of the run; a label is a place among them.
        skip_bad: Leave out images that cannot be read; all are decoded to find them.

    Raises:
        DataError: there are no images, or a folder is named like no class of the run.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder", subject=folder)
    names = class_folders(folder)
    if unknown := [name for name in names if name not in classes]:
        near = difflib.get_close_matches(unknown[0], classes, n=1)
        raise DataError(
            f"{folder}: the network has no class {', '.join(map(repr, unknown[:5]))}"
            + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""),
            hint=f"closest to {unknown[0]!r}: {near[0]!r}"
            if near
            else "folders are named as the "
            f"classes are: {', '.join(classes[:5])}{', …' if len(classes) > 5 else ''}",
            subject=folder,
        )
    keys: list[str] = []
    labels: list[int] = []
    for name in names:
        found = sorted(images_below(folder / name, name))
        keys += found
        labels += [classes.index(name)] * len(found)
    source = FolderSource(
        tuple(classes), tuple(keys), torch.tensor(labels), {}, folder, settings.cache
    )
    skipped: dict[str, str] = {}
    if skip_bad:
        skipped = {source.keys[i]: why for i, why in source.problems(decode=True).items()}
        source = source.without(skipped)
    if not source.keys:
        raise DataError(
            f"{folder}: no labelled images",
            hint=f"put them into {folder}/CLASS/, named as the run's classes are",
            subject=folder,
        )
    return LabelledImages(settings, source, skipped)


@dataclass(frozen=True)
class LabelledImages:
    """Images that are no split of a run.

    Attributes:
        settings: How they are transformed and read.
        source: Names, labels and files.
        skipped: Images that were left out → why.
    """

    settings: DataSettings
    source: FolderSource
    skipped: dict[str, str]

    def __len__(self) -> int:
        return len(self.source.keys)

    @property
    def labels_N(self) -> Tensor:
        """int64, in the order of ``batches``."""
        return self.source.labels_N

    @property
    def transform(self) -> str:
        """Canonical text of the evaluation transform, for fingerprints."""
        return describe(self.settings)

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of names, labels and contents, as that of a split.

        Raises:
            DataError: an image cannot be read.
        """
        return fingerprint(self.source, torch.arange(len(self)))

    def batches(
        self, *, batch_size: int, device: torch.device, channels_last: bool = True
    ) -> Iterator[Batch]:
        """All images, sorted by class and name, never augmented; the last batch is short.

        Raises:
            DataError: an image cannot be read.
        """
        all_N = torch.arange(len(self))
        return LoadedImages(self.source, self.settings).batches(
            (Request(all_N[i : i + batch_size]) for i in range(0, len(self), batch_size)),
            augment=False,
            device=device,
            channels_last=channels_last,
        )
