"""metrics.jsonl: one event a line, append-only, cut back to a checkpoint when a run resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class MetricsLog:
    """Appends records to a file and knows how far it has got.

    Args:
        path: The file; created if absent.
        keep_bytes: Cut the file back to this size first (None: keep all of it).
    """

    def __init__(self, path: Path, keep_bytes: int | None = None) -> None:
        self._file = path.open("ab")
        if keep_bytes is not None and keep_bytes < self._file.tell():
            self._file.truncate(keep_bytes)
            self._file.seek(0, os.SEEK_END)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line and hand it to the operating system."""
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def durable_offset(self) -> int:
        """Bytes that are safely on disk after this call; what a checkpoint records."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """All complete lines of a metrics file; a line cut short by a kill is passed over."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)
