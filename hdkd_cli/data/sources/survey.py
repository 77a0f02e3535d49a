"""What the files of a data set are: their SHA-256, and whether they can be read as images.

Every file is read once. What was found is kept beside the data, stamped with each file's size and
times, so that it costs a look at the folder from then on.

Shape suffix: N files.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdkd_cli.data.pictures import NoPicture, read_picture, to_rgb
from hdkd_cli.devices import cpu_count
from hdkd_cli.errors import DataError
from hdkd_cli.files import read_tensors, sha256_bytes, user_cache, write_tensors

FORMAT = "hdkd/survey/1"
PORTION = 256
"""Files that a thread takes at a time."""


class Found(NamedTuple):
    """What is known of one file."""

    stamp: tuple[int, int, int]
    """Size, time of change of the content, time of change of anything, in bytes and ns."""
    sha256: bytes
    """Of its content; zeros if it cannot be opened."""
    problem: str
    """Why it is no image that can be read; empty: none is known."""
    decoded: bool
    """Whether all of it was decoded, not its header alone."""


def survey(root: Path, keys: Sequence[str], *, decode: bool, cache: bool) -> list[Found]:
    """What every file is, in the order of ``keys``; those that were not read before are read now.

    Args:
        root: Where the keys begin.
        keys: Paths from there.
        decode: Decode whole images: a header alone does not tell that the rest is missing.
        cache: Keep what is found.
    """
    places = list(cache_places(root, "survey.safetensors")) if cache else []
    known = _read(places)

    def look(some: Sequence[str]) -> list[Found]:
        return [_look(f"{root}/{key}", known.get(key), decode=decode) for key in some]

    portions = [keys[first : first + PORTION] for first in range(0, len(keys), PORTION)]
    with ThreadPoolExecutor(min(8, cpu_count())) as threads:
        files = itertools.chain.from_iterable(threads.map(look, portions))
        found = dict(zip(keys, files, strict=True))
    if any(known.get(key) != file for key, file in found.items()):
        _write(places, known | found)
    return list(found.values())


def cache_places(root: Path, name: str) -> Iterator[Path]:
    """Where a file about the data in ``root`` can be kept, best first: beside the data, or in the
    user's cache folder."""
    yield root / ".hdkd-cache" / name
    yield user_cache() / sha256_bytes(os.fsencode(root.resolve()))[:16] / name


def _look(path: str, before: Found | None, *, decode: bool) -> Found:
    nothing = bytes(32)
    try:
        status = os.stat(path)  # noqa: PTH116 (speed)
    except OSError as problem:
        return Found((0, 0, 0), nothing, problem.strerror or str(problem), True)
    stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if before is not None and before.stamp == stamp and (before.decoded or not decode):
        return before
    if not stat.S_ISREG(status.st_mode):  # a pipe would block until it is written to
        return Found(stamp, nothing, "is not a regular file", True)
    try:
        content = Path(path).read_bytes()
    except OSError as problem:
        return Found(stamp, nothing, problem.strerror or str(problem), True)
    problem_found = ""
    try:
        read_picture(io.BytesIO(content), to_rgb if decode else lambda _: None)
    except NoPicture as error:
        problem_found = str(error).replace("\0", " ")
    return Found(stamp, hashlib.sha256(content).digest(), problem_found, decode)


def _read(places: Sequence[Path]) -> dict[str, Found]:
    for place in places:
        if place.is_file():
            # damaged, or of another version: everything is read again
            with contextlib.suppress(DataError, KeyError, ValueError):
                return _read_one(place)
    return {}


def _read_one(place: Path) -> dict[str, Found]:
    tensors, metadata = read_tensors(place, DataError)
    if metadata.get("format") != FORMAT or metadata.get("sha256") != _checksum(tensors):
        raise DataError(f"{place}: is damaged or of another version")
    stamps_N3, sha256_N32, decoded_N, names = (
        tensors[name].numpy() for name in ("stamps", "sha256", "decoded", "names")
    )
    keys, _, problems = names.tobytes().decode(errors="surrogateescape").partition("\0\0")
    rows = zip(
        keys.split("\0"),
        stamps_N3.tolist(),
        sha256_N32,
        problems.split("\0"),
        decoded_N,
        strict=True,
    )
    return {
        key: Found((stamp[0], stamp[1], stamp[2]), digest.tobytes(), problem, bool(decoded))
        for key, stamp, digest, problem, decoded in rows
    }


def _write(places: Sequence[Path], found: Mapping[str, Found]) -> None:
    files = found.values()
    # a name has no zero byte, a problem neither; no key is empty
    names = "\0".join(found) + "\0\0" + "\0".join(file.problem for file in files)
    arrays: dict[str, NDArray[Any]] = {
        "stamps": np.array([file.stamp for file in files], dtype=np.int64),
        "sha256": np.frombuffer(b"".join(file.sha256 for file in files), np.uint8).reshape(-1, 32),
        "decoded": np.array([file.decoded for file in files], dtype=np.uint8),
        "names": np.frombuffer(names.encode(errors="surrogateescape"), np.uint8),
    }
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    for place in places:
        # read-only or full: what is kept only saves time
        with contextlib.suppress(OSError):
            write_tensors(place, tensors, {"format": FORMAT, "sha256": _checksum(tensors)})
            return


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    return sha256_bytes(*(tensors[name].numpy().tobytes() for name in sorted(tensors)))
