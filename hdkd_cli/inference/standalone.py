"""A module as a program of its own: what it imports from this package is written in its place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

PACKAGE = __package__.partition(".")[0]


def standalone(path: Path) -> str:
    """The source of a module, which imports modules of this package by ``from .. import`` names.

    These, and what they import, must need nothing else of this package, and have no names in
    common that mean different things.
    """
    return "".join(_lines(path, written=set()))


def _lines(path: Path, written: set[str]) -> Iterator[str]:
    source = path.read_text()
    lines = source.splitlines(keepends=True)
    done = 0
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"{PACKAGE}."):
            assert node.end_lineno is not None
            assert all(alias.asname is None for alias in node.names)
            yield from lines[done : node.lineno - 1]
            yield from _embedded(str(node.module), written)
            done = node.end_lineno
    yield from lines[done:]


def _embedded(name: str, written: set[str]) -> Iterator[str]:
    """A module without its first line of imports, which may only stand at the top of a file."""
    if name in written:
        return
    written.add(name)
    found = find_spec(name)
    assert found is not None
    assert found.origin is not None
    for line in _lines(Path(found.origin), written):
        if not line.startswith("from __future__ import"):
            yield line
