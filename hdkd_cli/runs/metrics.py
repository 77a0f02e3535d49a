"""metrics.jsonl: one event per line, append-only, cut back to a checkpoint when a run resumes."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from hdkd_cli.errors import RunError
from hdkd_cli.reading import MAX_BYTES, parse_json


class MetricsLog:
    """Appends records to a file and knows how far it has got.

    Args:
        path: The file; created if absent.
        keep_bytes: Cut the file back to this size first (None: keep all of it).

    Raises:
        RunError: ``path`` is a link or no plain file.
    """

    def __init__(self, path: Path, keep_bytes: int | None = None) -> None:
        self._path = path
        self._file = open_plain(path)
        if keep_bytes is not None and keep_bytes < self._file.tell():
            self._file.truncate(keep_bytes)
            self._file.seek(0, os.SEEK_END)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line and hand it to the operating system."""
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def durable_offset(self) -> int:
        """Bytes that are safely on disk after this call; what a checkpoint records.

        Raises:
            RunError: the file is no longer where it was: the run was moved or removed.
        """
        os.fsync(self._file.fileno())
        try:
            there = os.path.samestat(os.fstat(self._file.fileno()), self._path.lstat())
        except OSError:
            there = False
        if not there:
            raise RunError(
                f"{self._path.parent}: was moved or removed while it trained; training has stopped",
                hint="`hdkd train --resume` goes on in the new place, from the last checkpoint",
                subject=self._path.parent,
            )
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_plain(path: Path) -> IO[bytes]:
    """Open a file of a run for appending, made if absent; what a link leads to is left alone.

    Raises:
        RunError: ``path`` is a link or no plain file.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.fdopen(os.open(path, flags, 0o666), "ab")
    except OSError as problem:
        if problem.errno not in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
            raise
        raise _no_plain_file(path) from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _no_plain_file(path)
    return file


def _no_plain_file(path: Path) -> RunError:
    return RunError(f"{path}: is a link or no plain file", hint="remove it", subject=path)


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """All complete lines of a metrics file; a line cut short by a kill is passed over.

    Raises:
        RunError: a line is not an event.
    """
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_BYTES):
            number += 1
            if not line.endswith(b"\n"):
                if len(line) == MAX_BYTES:
                    raise RunError(f"{path}, line {number}: is too long")
                return
            source = f"{path}, line {number}"
            record = parse_json(line.decode(errors="replace"), source, RunError)
            if not isinstance(record, dict) or not isinstance(record.get("event"), str):
                raise RunError(f"{source}: is no event")
            yield record
