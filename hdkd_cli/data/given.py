"""Validation images that a file lists, as published code ships them."""

from __future__ import annotations

from pathlib import Path

from hdkd_cli.data.sources.base import Source
from hdkd_cli.errors import DataError
from hdkd_cli.files import looks_like_pickle, read_tensors
from hdkd_cli.settings.data import DataSettings

LIMIT_BYTES = 2**28


def given_indices(source: Source, settings: DataSettings) -> frozenset[int]:
    """Places in the source of the images that ``data.val_indices`` lists.

    The file is text, one image per line: a number, which counts the training images from 0 in the
    order of the source, or a name, such as ``train/cat/007.png``. Or it is a safetensors file with
    one tensor of such numbers.

    Raises:
        DataError: it cannot be read, or lists what is no training image, or one of them twice.
    """
    assert settings.val_indices is not None
    path = _place(settings.val_indices, settings.root)
    train = source.parts["train"]
    by_name = {source.keys[i]: i for i in train}
    found: set[int] = set()
    for number, entry in enumerate(_entries(path), 1):
        if entry.isascii() and entry.isdigit() and len(entry) < 20:
            index = train.start + int(entry)
            known = index in train
        else:
            index = by_name.get(entry, -1)
            known = index >= 0
        if not known:
            raise DataError(
                f"{path}, entry {number}: {entry[:80]!r} is none of the {len(train)} training "
                "images",
                hint="numbers count them from 0; names begin at data.root",
                subject=path,
            )
        if index in found:
            raise DataError(f"{path}, entry {number}: {entry[:80]!r} is listed twice", subject=path)
        found.add(index)
    return frozenset(found)


def _place(name: str, root: str | None) -> Path:
    """Beside the data if there is such a file, so that a run can move with it; else from here."""
    path = Path(name).expanduser()
    beside = Path(root).expanduser() / path if root is not None else path
    return beside if beside.is_file() else path


def _entries(path: Path) -> list[str]:
    if path.suffix == ".safetensors":
        tensors, _ = read_tensors(path, DataError)
        if len(tensors) != 1 or next(iter(tensors.values())).is_floating_point():
            raise DataError(f"{path}: one tensor of whole numbers is needed", subject=path)
        return [str(number) for number in next(iter(tensors.values())).flatten().tolist()]
    if not path.is_file():
        raise DataError(f"{path}: no such file (data.val_indices)", subject=path)
    if looks_like_pickle(path):
        raise DataError(
            f"{path}: is a Python pickle (torch.save), which is never opened here",
            hint="write its numbers as text, one per line",
            subject=path,
        )
    if path.stat().st_size > LIMIT_BYTES:
        raise DataError(f"{path}: is too large for a list of images", subject=path)
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as problem:
        raise DataError(f"{path}: {problem.strerror}", subject=path) from None
    return [line.strip() for line in text.splitlines() if line.strip()]
