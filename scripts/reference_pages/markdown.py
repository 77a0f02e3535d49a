"""Types, docstrings and tables as Markdown."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel


def plain(text: str | None) -> str:
    """One line of Markdown from a docstring or help text."""
    return re.sub(r"\s+", " ", (text or "").replace("``", "`")).strip()


def cell(text: str | None) -> str:
    """Text that may stand in a table."""
    return plain(text).replace("|", "\\|")


def code(text: str) -> str:
    """Code that may stand in a table."""
    return f"`{text}`".replace("|", "\\|")


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def docstring(thing: Any) -> str:
    """The docstring of something, as Markdown."""
    return markdown(inspect.getdoc(thing) or "")


def markdown(doc: str) -> str:
    """A docstring as Markdown: paragraphs, code, and its sections as lists."""
    text = "\n".join(_lines(doc)).strip() + "\n"
    return re.sub(r"\n\n+```\n\n", "\n```\n\n", text)


def _lines(doc: str) -> Iterator[str]:
    in_section = in_code = False
    for line in doc.replace("``", "`").splitlines():
        indent = len(line) - len(line.lstrip())
        section = re.fullmatch(r"(Args|Attributes|Returns|Raises):", line)
        if in_code and line and not indent:
            in_code = False
            yield "```\n"
        if section:
            in_section = True
            yield f"{section[1]}:\n"
        elif in_section and indent == 4 and (entry := re.match(r"([*\w, ]+): (.*)", line.strip())):
            yield f"- `{entry[1]}`: {entry[2]}"
        elif in_section and line:
            yield f"  {line.strip()}" if indent >= 8 else line.strip()
        elif indent >= 4 and not in_section:
            if not in_code:
                in_code = True
                yield "```"
            yield line[4:]
        else:
            in_section = in_section and not line
            yield line
    if in_code:
        yield "```"


def _within(hint: Any) -> str:
    name = type_name(hint)
    return f"({name})" if " or " in name else name


def type_name(hint: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    if origin is Literal:
        return ", ".join(code(str(choice)) for choice in inner)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if one is type(None) else type_name(one) for one in inner)
    if origin is tuple:
        parts = [one for one in inner if one is not Ellipsis]
        if len(inner) == 2 and Ellipsis in inner:
            return f"list of {_within(parts[0])}"
        return f"list of {len(parts)} × {type_name(parts[0])}"
    if origin is dict:
        return f"{type_name(inner[0])} → {type_name(inner[1])}"
    if hasattr(hint, "__metadata__"):
        return type_name(inner[0])
    names = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "anything"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))
