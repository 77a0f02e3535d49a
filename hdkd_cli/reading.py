"""Text that others wrote, read with limits: JSON and TOML of a size, a depth and numbers of a
length that no record of ours has. Whatever is wrong with it is one line.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import BaseModel, ValidationError

from hdkd_cli.errors import HdkdError

MAX_BYTES = 16 << 20
"""A run.json of 100,000 class names has a fifth of it."""
MAX_SETTINGS_BYTES = 1 << 20
"""Settings have a few kilobytes."""
MAX_DEPTH = 32
MAX_BITS = 63
"""Of an integer: what tensors can hold."""

Fault = Callable[[str], HdkdError]
Model = TypeVar("Model", bound=BaseModel)


def read_text(path: Path, error: Fault, *, limit: int = MAX_BYTES) -> str:
    """The text of a file, UTF-8 with or without a byte order mark.

    Args:
        path: The file; a pipe will do.
        error: The exception class (or factory) to raise with a one-line message.
        limit: Bytes it may have.

    Raises:
        HdkdError: of ``error``; it is missing, unreadable, too large or no text.
    """
    try:
        with path.open("rb") as file:
            return decoded(file, str(path), error, limit=limit)
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except IsADirectoryError:
        raise error(f"{path}: is a folder, not a file") from None
    except OSError as problem:
        raise error(f"{path}: {problem.strerror}") from None


def decoded(file: IO[bytes], source: str, error: Fault, *, limit: int = MAX_BYTES) -> str:
    """The rest of an open file as text; see ``read_text``."""
    content = file.read(limit + 1)
    if len(content) > limit:
        raise error(f"{source}: is larger than {limit >> 10} KiB, which nothing of hdkd is")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise error(f"{source}: is not a text file (UTF-8)") from None


def parse_json(text: str, source: str, error: Fault) -> Any:
    """What a JSON text says.

    Args:
        text: The JSON.
        source: Where it came from, for messages.
        error: The exception class (or factory) to raise with a one-line message.

    Raises:
        HdkdError: of ``error``; it is not JSON, nested too deeply, or holds a number out of range.
    """
    parse = partial(json.loads, parse_constant=_refuse_constant)
    return _parsed(parse, text, source, error, "is not JSON ({})", finite=True)


def read_json(path: Path, error: Fault) -> Any:
    """What a JSON file says; see ``read_text`` and ``parse_json``."""
    return parse_json(read_text(path, error), str(path), error)


def parse_record(model: type[Model], schema: str, text: str, source: str, error: Fault) -> Model:
    """A record of ours from JSON text; fields that the model does not know are ignored.

    Args:
        model: Its shape.
        schema: What stands under ``schema``; empty: the record names none.
        text: The JSON.
        source: Where it came from, for messages.
        error: The exception class (or factory) to raise with a one-line message.

    Raises:
        HdkdError: of ``error``; the text is none, is of another schema, or does not fit the model.
    """
    content = parse_json(text, source, error)
    found = content.get("schema") if isinstance(content, dict) else None
    if schema and found != schema:
        what = f"schema {found!r:.100}" if found is not None else "JSON without a schema"
        raise error(f"{source}: is {what}, schema {schema!r} is needed")
    try:
        # Names of files that are no text have half characters, of which pydantic reads none.
        valid = json.dumps(content, ensure_ascii=False).encode(errors="replace")
        return model.model_validate_json(valid, strict=True)
    except ValidationError as problem:
        raise error(f"{source}: {first_fault(problem)}") from None


def first_fault(problem: ValidationError) -> str:
    """The first thing that a model does not accept, as one line."""
    first = problem.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])[:200]
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def read_toml(path: Path, error: Fault) -> dict[str, Any]:
    """What a TOML file of settings says; see ``read_text`` and ``parse_toml``."""
    text = read_text(path, error, limit=MAX_SETTINGS_BYTES)
    return parse_toml(text, str(path), error)


def parse_toml(text: str, source: str, error: Fault) -> dict[str, Any]:
    """What a TOML text says.

    Raises:
        HdkdError: of ``error``; it is not TOML, nested too deeply, or holds a number out of range.
    """
    tables: dict[str, Any] = _parsed(
        tomllib.loads, text, source, error, "is not valid TOML: {}", finite=False
    )
    return tables


def _parsed(
    parse: Callable[[str], Any], text: str, source: str, error: Fault, fault: str, *, finite: bool
) -> Any:
    """What ``parse`` makes of a text; ``fault`` says what it is not, and why."""
    try:
        content = parse(text)
    except RecursionError:
        raise error(f"{source}: is nested more than {MAX_DEPTH} deep") from None
    except ValueError as problem:
        raise error(f"{source}: {fault.format(problem)}") from None
    if excess := _excess(content, finite=finite):
        raise error(f"{source}: {excess}")
    return content


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _excess(content: Any, *, finite: bool) -> str | None:
    """What of ``content`` is beyond the limits; found without recursion."""
    level = [content]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                deeper += value.values()
            elif isinstance(value, list):
                deeper += value
            elif isinstance(value, int) and value.bit_length() > MAX_BITS:
                return f"holds a number of more than {MAX_BITS} bits"
            elif finite and isinstance(value, float) and not math.isfinite(value):
                return "holds a number beyond what a float can hold"
        if not deeper:
            return None
        level = deeper
    return f"is nested more than {MAX_DEPTH} deep"
