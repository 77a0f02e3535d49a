"""Folders of images: ``<root>/train/<class>/*``, ``<root>/test/<class>/*``, maybe ``val``.

Class names are sorted as plain text, as torchvision's ``ImageFolder`` does. Class folders are
searched to any depth; names that begin with a dot are ignored.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from hdkd_cli.choices import Part
from hdkd_cli.data.sources.base import IMAGE_SUFFIXES, FolderSource
from hdkd_cli.errors import DataError
from hdkd_cli.settings.data import DataSettings

LAYOUT: Mapping[Part, str] = {"train": "train", "test": "test"}


def folder_of(settings: DataSettings) -> Path:
    """The folder that ``data.root`` names; ``~`` is the user's home."""
    assert settings.root is not None  # open_data asks for it
    return Path(settings.root).expanduser()


def open_folder(
    root: Path, layout: Mapping[Part, str] = LAYOUT, *, cache: bool = False
) -> FolderSource:
    """List the images under ``root``; nothing is decoded.

    Args:
        root: Folder that holds one folder per part.
        layout: Part → name of its folder.
        cache: Whether what is found out about the files is kept on disk.

    Raises:
        DataError: a folder or its images are missing, there is a single class, or the parts do not
            have the same classes.
    """
    missing = [name for name in layout.values() if not (root / name).is_dir()]
    if missing:
        wanted = " and ".join(f"{root / name}/<class>/*" for name in layout.values())
        raise DataError(
            f"{root}: no such folder as {' or '.join(missing)}; looked for images in {wanted} "
            "(--data-dir says where the data is)"
        )
    classes = _classes(root / layout["train"])
    keys: list[str] = []
    labels: list[int] = []
    parts: dict[Part, range] = {}
    others: Counter[str] = Counter()
    for part, name in layout.items():
        _refuse_other_classes(root, layout["train"], name, classes)
        first = len(keys)
        for label, class_name in enumerate(classes):
            folder = root / name / class_name
            found = sorted(images_below(folder, f"{name}/{class_name}", others))
            if not found:
                endings = " ".join(sorted(IMAGE_SUFFIXES))
                raise DataError(f"{folder}: no images ({endings}) in this folder")
            keys.extend(found)
            labels.extend([label] * len(found))
        parts[part] = range(first, len(keys))
    return FolderSource(classes, tuple(keys), torch.tensor(labels), parts, root, cache, others)


def _classes(folder: Path) -> tuple[str, ...]:
    names = class_folders(folder)
    if len(names) < 2:
        held = f"only one class folder ({names[0]})" if names else "no class folders"
        raise DataError(f"{folder}: {held}; a folder for each of two or more classes is needed")
    return tuple(names)


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in ``folder``, as plain text sorted; hidden ones are left out."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if _is_folder(e) and e.name[0] != ".")


def _refuse_other_classes(root: Path, train: str, other: str, classes: tuple[str, ...]) -> None:
    differing = sorted(set(classes) ^ set(_classes(root / other)))
    if differing:
        shown = ", ".join(differing[:5]) + (", ..." if len(differing) > 5 else "")
        raise DataError(
            f"{root}: {train}/ and {other}/ must have the same class folders; only one of them "
            f"has {shown}"
        )


def images_below(folder: Path, key: str, others: Counter[str] | None = None) -> Iterator[str]:
    """Paths of the images in ``folder`` and below, with ``key`` in its place; in no order.

    A link that leads back to a folder it is in is not followed: its images are listed already.
    ``others`` counts the files of other kinds, by what their names end in.
    """
    others = Counter() if others is None else others
    yield from _below(str(folder), key, others, frozenset({_identity(folder)}))


def _below(
    folder: str, key: str, others: Counter[str], above: frozenset[tuple[int, int]]
) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                identity = _identity(entry)
                if identity not in above:
                    below = f"{key}/{entry.name}"
                    yield from _below(entry.path, below, others, above | {identity})
                continue
            suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 (speed)
            if suffix in IMAGE_SUFFIXES:
                yield f"{key}/{entry.name}"
            else:
                others[suffix] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(folder: Path | os.DirEntry[str]) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
