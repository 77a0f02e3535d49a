"""CIFAR-10 and CIFAR-100: torchvision's files, or a folder of images.

The authors' files are pickles, which can run code when they are read. They are therefore compared
with the checksums torchvision publishes before the first of them is opened.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from hdkd_cli.data.sources.base import ArraySource, Source
from hdkd_cli.data.sources.folders import folder_of, open_folder
from hdkd_cli.errors import DataError
from hdkd_cli.settings.data import DataSettings


def open_cifar(settings: DataSettings) -> Source:
    """Open ``cifar10`` or ``cifar100``.

    Args:
        settings: ``name``, which of the two; ``root``, which holds torchvision's folder, or
            ``train/<class>/*`` and ``test/<class>/*``; ``download``, whether to fetch the authors'
            archive if it holds neither.

    Raises:
        DataError: the data is not there, cannot be fetched, or is not what its authors published.
    """
    name, root = settings.name, folder_of(settings)
    if (root / "train").is_dir():
        return open_folder(root, cache=settings.cache)
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    kind: Any = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    folder = root / kind.base_folder
    checksums = {
        **dict(kind.train_list + kind.test_list),
        kind.meta["filename"]: kind.meta["md5"],
    }

    def differing() -> list[str]:
        return [f for f, md5 in checksums.items() if not check_integrity(folder / f, md5)]

    if settings.download and differing():
        _fetch(kind, root)
    wrong = differing()
    if wrong and (folder / wrong[0]).exists():
        raise DataError(
            f"{folder / wrong[0]}: is damaged or was changed (its checksum differs)",
            hint="remove it and fetch it again with --download",
        )
    if wrong:
        raise DataError(
            f"{root}: {name} is not there; looked for {folder / wrong[0]} and for images in "
            f"{root}/train/<class>/*",
            hint="--download fetches it, --data-dir says where it is",
        )
    with warnings.catch_warnings():  # NumPy 2.4 frowns on how the 2009 pickles spell a dtype
        warnings.simplefilter("ignore")
        train, test = kind(root, train=True), kind(root, train=False)
    parts = [(part.data, torch.tensor(part.targets)) for part in (train, test)]
    return ArraySource.from_parts(train.classes, *parts)


def _fetch(kind: Any, root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for data
            kind(root, download=True)
    except (OSError, RuntimeError, EOFError) as problem:
        raise DataError(f"{kind.url} could not be fetched into {root}: {problem}") from None
