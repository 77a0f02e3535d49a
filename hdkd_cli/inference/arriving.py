"""Image files that arrive one by one: read ahead by threads, handed on in batches, in order."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from hdkd_cli.data.sources.folders import images_below
from hdkd_cli.data.transform import frame, read_image, to_pixels
from hdkd_cli.errors import DataError
from hdkd_cli.settings.data import DataSettings

IDLE_SECONDS = 1.0
"""A batch that is not full is handed on if no further image comes in this time."""


class Arrived(NamedTuple):
    """An image that could be read."""

    name: str
    pixels: Tensor
    """uint8 (3, H, W), as evaluation cuts it out."""


def image_files(names: Iterable[str]) -> list[str]:
    """Files as they are, folders as the sorted images in them, to any depth.

    Raises:
        DataError: there are no images in a folder.
    """
    found: list[str] = []
    for name in names:
        if not Path(name).is_dir():
            found.append(name)
            continue
        inside = sorted(images_below(Path(name), name.rstrip("/")))
        if not inside:
            raise DataError(f"{name}: no images in this folder")
        found.extend(inside)
    return found


def batches_of(
    names: Iterable[str],
    settings: DataSettings,
    batch_size: int,
    refused: Callable[[DataError], object],
    *,
    threads: int,
) -> Iterator[list[Arrived]]:
    """Batches in the order of ``names``. One that is not full says that nothing follows for now:
    the names have come to an end, or none came for a second. It may be empty.

    Args:
        names: Paths; the iterator may take its time, it is read by a thread of its own.
        settings: How images are framed.
        batch_size: Images in a full batch.
        refused: Told of every file that cannot be read, in its turn.
        threads: How many decode.
    """

    def read(name: str) -> Arrived:
        return Arrived(name, to_pixels(frame(read_image(Path(name)), settings)))

    coming: queue.Queue[Future[Arrived] | BaseException | None] = queue.Queue(2 * batch_size)
    pool = ThreadPoolExecutor(threads)

    def listen() -> None:
        with suppress(RuntimeError):  # the pool was closed: no more images are wanted
            try:
                for name in names:
                    coming.put(pool.submit(read, name))
            except OSError as problem:
                coming.put(problem)
            coming.put(None)

    # A daemon: it may wait for a line that never comes.
    threading.Thread(target=listen, daemon=True).start()
    batch: list[Arrived] = []
    try:
        while True:
            try:
                item = coming.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                yield batch
                batch = []
                continue
            if item is None:
                yield batch
                return
            if isinstance(item, BaseException):
                raise item
            try:
                batch.append(item.result())
            except DataError as problem:
                refused(problem)
            if len(batch) == batch_size:
                yield batch
                batch = []
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def lines_of(handle: int) -> Iterator[str]:
    """Lines of a file descriptor as they come, without their ends; empty ones are left out.

    Names need not be text. (``sys.stdin`` is no use here: Python cannot end while a thread waits
    in it.)
    """
    with open(handle, "rb", closefd=False) as file:
        for line in file:
            if name := os.fsdecode(line.rstrip(b"\r\n")):
                yield name
