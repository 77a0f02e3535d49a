"""docs/reference/python.md: every public name."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import hdkd_cli
from hdkd_cli import testing
from hdkd_cli.records.base import Record
from reference_pages.markdown import docstring, markdown


def python_page() -> str:
    """Every public name."""
    parts = ["# Python\n", docstring(hdkd_cli)]
    for name in hdkd_cli.__all__:
        if not name.startswith("_"):
            parts += _documented(name, getattr(hdkd_cli, name))
    parts += ["## hdkd_cli.testing.check_network\n", docstring(testing.check_network)]
    return "\n".join(parts)


def _documented(name: str, thing: Any) -> list[str]:
    if isinstance(thing, type) and issubclass(thing, Record):
        where = f"The record [`{thing.schema_id}`](records.md#{name.lower()}).\n"
        return [f"## {name}\n", where, *_members(name, thing)]
    if isinstance(thing, type):
        return [f"## {name}\n", docstring(thing), *_members(name, thing)]
    return [f"## {name}\n", f"```\n{name}{_signature(thing)}\n```\n", docstring(thing)]


def _members(owner: str, kind: type) -> Iterator[str]:
    """Public methods and properties, those of this package's base classes included."""
    for name in sorted(dir(kind)):
        member = inspect.getattr_static(kind, name)
        home = next(base for base in kind.__mro__ if name in vars(base))
        ours = home.__module__.startswith("hdkd_cli") and home is not Record
        documented = _own_docstring(member, kind, name)
        if name.startswith("_") or not ours or not documented:
            continue
        if isinstance(member, property | cached_property):
            yield f"### {owner}.{name}\n"
        elif callable(getattr(kind, name)) and not isinstance(member, type):
            yield f"### {owner}.{name}\n"
            yield f"```\n{owner}.{name}{_signature(getattr(kind, name))}\n```\n"
        else:
            continue
        yield documented


def _own_docstring(member: Any, kind: type, name: str) -> str:
    function = getattr(member, "fget", None) or getattr(member, "func", None) or member
    text = inspect.getdoc(getattr(kind, name)) if callable(function) else None
    if (
        isinstance(function, types.FunctionType | classmethod | staticmethod)
        or function is not member
    ):
        text = inspect.getdoc(function) or text
    return markdown(text) if text else ""


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name != "self"]
    text = str(signature.replace(parameters=parameters)).replace("'", "")
    text = re.sub(r"<function (\w+) at \w+>", r"\1", text)
    if len(text) < 80:
        return text
    inside, _, result = text[1:].rpartition(")")
    lines = re.sub(r", (?![^\[(]*[\])])", ",\n    ", inside)
    return f"(\n    {lines},\n){result}"
