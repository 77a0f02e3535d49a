"""All images of a source as one uint8 tensor, decoded once and kept on disk.

What is kept is stamped with every file's name and content, with the transform and with a checksum
of the pixels; whatever does not match is decoded again and replaced. There is one
file for each (root, resize, image_size), so caches do not pile up.

Shape suffixes: N images, S pixels per side, 3 colours.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import PIL
import torch
from torch import Tensor

from hdkd_cli.data.order import Request
from hdkd_cli.data.sources.base import FolderSource, Source
from hdkd_cli.data.sources.survey import cache_places
from hdkd_cli.data.workers import decode
from hdkd_cli.errors import DataError
from hdkd_cli.files import read_tensors, sha256_bytes, write_tensors
from hdkd_cli.settings.data import DataSettings

FORMAT = "hdkd/pool/2"
IMAGES_PER_WORKER = 1000  # a process is worth starting for this many images
IMAGES_PER_REQUEST = 128


def decoded_pool(source: Source, settings: DataSettings) -> Tensor:
    """uint8 (N, 3, S, S): every image of ``source`` after the evaluation resize and crop.

    Files are cached if ``settings.cache``: in ``<root>/.hdkd-cache``, or in the user's cache folder
    where that cannot be written; where neither can, nothing is kept.

    Raises:
        DataError: an image cannot be read.
    """
    if not (settings.cache and isinstance(source, FolderSource)):
        return _decode(source, settings)
    stamp = _stamp(source, settings)
    size = settings.image_size
    name = f"decoded-{settings.shorter_side}-{size}.safetensors"
    places = list(cache_places(source.root, name))
    for place in places:
        if place.is_file():
            with contextlib.suppress(DataError):
                return _read(place, stamp)
    try:
        pool_N3SS = _decode(source, settings)
    except DataError:
        source.refuse_bad(decode=True)  # which names them all
        raise
    metadata = {"format": FORMAT, "stamp": stamp, "pixels_sha256": _checksum(pool_N3SS)}
    for place in places:
        # read-only or full: the cache only saves time
        with contextlib.suppress(OSError):
            write_tensors(place, {"images": pool_N3SS}, metadata)
            break
    return pool_N3SS


def _decode(source: Source, settings: DataSettings) -> Tensor:
    size, count = settings.image_size, len(source.keys)
    pool_N3SS = torch.empty((count, 3, size, size), dtype=torch.uint8)
    requests = [
        Request(torch.arange(first, min(first + IMAGES_PER_REQUEST, count)))
        for first in range(0, count, IMAGES_PER_REQUEST)
    ]
    in_files = isinstance(source, FolderSource)
    workers = min(settings.workers, count // IMAGES_PER_WORKER) if in_files else 0
    decoded = decode(source, settings, requests, augment=False, workers=workers)
    for (indices_B, *_), (pixels_B3SS, _) in zip(requests, decoded, strict=True):
        pool_N3SS[indices_B] = pixels_B3SS
    return pool_N3SS


def _stamp(source: FolderSource, settings: DataSettings) -> str:
    shape = f"{settings.shorter_side} {settings.image_size} {settings.interpolation}"
    lines = [f"{FORMAT} pillow {PIL.__version__} {shape}"]
    for key, content in zip(source.keys, source.contents(range(len(source.keys))), strict=True):
        lines.append(f"{key}\0{content.hex()}")
    return sha256_bytes("\n".join(lines).encode(errors="surrogateescape"))


def _read(place: Path, stamp: str) -> Tensor:
    """The kept tensor.

    Raises:
        DataError: the file is damaged, or of other images.
    """
    tensors, metadata = read_tensors(place, DataError)
    if metadata.get("format") != FORMAT or metadata.get("stamp") != stamp:
        raise DataError(f"{place}: is of other images")
    if metadata.get("pixels_sha256") != _checksum(tensors["images"]):
        raise DataError(f"{place}: is damaged")
    return tensors["images"]


def _checksum(pool_N3SS: Tensor) -> str:
    return hashlib.sha256(pool_N3SS.numpy().data).hexdigest()
