"""``folder`` and ``imagenet``: which folder holds which part, and what the classes are called.

train-test      train/<class>/*, test/<class>/*, maybe val/<class>/*
train-val       train/<class>/*, val/<class>/*: val is the test part, as ImageNet's is, whose
                own test images have no labels
tiny-imagenet   as it is downloaded: train/<class>/images/*, and val/images/* with their classes
                in val/val_annotations.txt, which is the test part
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from hdkd_cli.choices import Layout, Part
from hdkd_cli.data.sources.base import FolderSource
from hdkd_cli.data.sources.folders import folder_of, open_folder
from hdkd_cli.errors import DataError
from hdkd_cli.settings.data import DataSettings

ANNOTATIONS = "val/val_annotations.txt"
NAMES = ("words.txt", "classes.txt", "LOC_synset_mapping.txt")
"""Files that say what class folders are called: a folder and its name in a line."""


def open_folders(settings: DataSettings) -> FolderSource:
    """Open ``folder`` in the layout that ``data.layout`` names, or that its folders show.

    Raises:
        DataError: the folders are in no layout, or images are missing.
    """
    root = folder_of(settings)
    layout = _layout(root) if settings.layout == "auto" else settings.layout
    if layout == "tiny-imagenet":
        source = _open_tiny_imagenet(root, cache=settings.cache)
    else:
        parts: Mapping[Part, str] = {"train": "train", "test": "test"}
        if layout == "train-val":
            parts = {"train": "train", "test": "val"}
        elif (root / "val").is_dir():
            parts = {**parts, "val": "val"}
        source = open_folder(root, parts, cache=settings.cache)
    return _named(source)


def open_imagenet(settings: DataSettings) -> FolderSource:
    """Open ``imagenet``: its official validation images are the test part.

    Raises:
        DataError: as ``open_folder``.
    """
    parts: Mapping[Part, str] = {"train": "train", "test": "val"}
    return _named(open_folder(folder_of(settings), parts, cache=settings.cache))


def _layout(root: Path) -> Layout:
    if (root / ANNOTATIONS).is_file():
        return "tiny-imagenet"
    train, val, test = ((root / name).is_dir() for name in ("train", "val", "test"))
    if train and val and not test:
        return "train-val"
    if train and test:
        return "train-test"
    raise DataError(
        f"{root}: no folder of images in a known layout"
        if root.is_dir()
        else f"{root}: no such folder",
        hint="needed: train/CLASS/* and test/CLASS/* (and maybe val/CLASS/*), or train/CLASS/* and "
        "val/CLASS/*, or Tiny-ImageNet as it is downloaded; --data-dir says where the data is",
        subject=root,
    )


def _open_tiny_imagenet(root: Path, *, cache: bool) -> FolderSource:
    file = root / ANNOTATIONS
    if not file.is_file():
        raise DataError(f"{file}: no such file", hint="data.layout = tiny-imagenet needs it")
    train = open_folder(root, {"train": "train"}, cache=cache)
    label_of = {name: label for label, name in enumerate(train.classes)}
    found: dict[str, int] = {}
    for number, line in enumerate(_lines(file), 1):
        name, folder, *_ = [*line.split("\t"), "", ""]
        if not name or Path(name).name != name or folder not in label_of:
            raise DataError(
                f"{file}, line {number}: {line[:80]!r} is not an image and one of the class folders"
            )
        found[f"val/images/{name}"] = label_of[folder]
    keys = sorted(found)
    if not keys:
        raise DataError(f"{file}: names no images")
    return replace(
        train,
        keys=train.keys + tuple(keys),
        labels_N=torch.cat([train.labels_N, torch.tensor([found[key] for key in keys])]),
        parts={**train.parts, "test": range(len(train.keys), len(train.keys) + len(keys))},
    )


def _named(source: FolderSource) -> FolderSource:
    """The same with the names that a file beside the images gives to its class folders: the first
    of several (``goldfish, Carassius auratus``), with the folder's where two share one."""
    for file in (source.root / name for name in NAMES):
        if file.is_file():
            called = _names_in(file, source.classes)
            names = [called.get(folder, folder) for folder in source.classes]
            return replace(
                source,
                classes=tuple(
                    name if names.count(name) == 1 else f"{name} ({folder})"
                    for name, folder in zip(names, source.classes, strict=True)
                ),
            )
    return source


def _names_in(file: Path, folders: Sequence[str]) -> dict[str, str]:
    wanted = set(folders)
    found = {}
    for line in _lines(file):
        folder, *rest = line.split(maxsplit=1)
        if folder in wanted and rest:
            found[folder] = rest[0].split(",")[0].strip() or folder
    return found


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as problem:
        raise DataError(f"{file}: cannot be read as text ({problem})") from None
    return [line for line in text.splitlines() if line.strip()]
