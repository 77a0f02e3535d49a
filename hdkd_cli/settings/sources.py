"""What each source of settings says: a file, the environment, ``--set``, the flags.

A source becomes a layer: key → value and where it is from. Nothing is validated yet.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hdkd_cli.errors import Problem
from hdkd_cli.settings.keys import field_of, flatten, leaves
from hdkd_cli.settings.schema import Settings
from hdkd_cli.settings.trust import VARIABLE
from hdkd_cli.settings.values import from_text, from_toml_value, show

DEFAULT = "default"  # the layer below all sources: the schema
METHOD = "method"
PREFIX = "HDKD_"
# Variables of that prefix that are no settings: the tests' reference score files, trusted modules.
RESERVED_VARIABLES = frozenset({"HDKD_ORACLE_DIR", VARIABLE})
# Flags that are short for a setting; a flag's value wins over everything else.
FLAGS = {
    "--seed": "training.seed",
    "--device": "training.device",
    "--data-dir": "data.root",
    "--download": "data.download",
    "--init-from": "training.init_from",
}


class Given(NamedTuple):
    """A value and the layer that gave it."""

    value: Any
    origin: str


Layer = dict[str, Given]  # key → what a layer gives; `method` is a key of its own


def table_layer(tables: Mapping[str, Any], origin: str, problems: list[Problem]) -> Layer:
    """The layer of a TOML file's content."""
    tables = dict(tables)
    version = tables.pop("schema", Settings.schema_version)
    if version != Settings.schema_version:
        wrong = f"schema = {show(version)} ({origin}): this hdkd reads {Settings.schema_version}"
        problems.append(Problem(wrong, "schema", version, origin))
    pairs = [pair for name, value in tables.items() for pair in flatten(name, value)]
    return {key: Given(from_toml_value(value, field_of(key)), origin) for key, value in pairs}


def environment_layer(variables: Mapping[str, str], problems: list[Problem]) -> Layer:
    """The layer of ``HDKD_METHOD`` and ``HDKD_SECTION__FIELD`` variables."""
    layer: Layer = {}
    for name, text in sorted(variables.items()):
        if not name.startswith(PREFIX) or name in RESERVED_VARIABLES:
            continue
        bare = name.removeprefix(PREFIX)
        key = bare.lower().replace("__", ".")
        if key == METHOD or "." in key:
            layer.update(_text(key, text, f"environment {name}"))
        else:
            known = [k.replace(".", "__").upper() for k in (METHOD, *leaves(Settings()))]
            near = [PREFIX + other for other in difflib.get_close_matches(bare, known, n=1)]
            hint = f"closest: {near[0]}" if near else "settings are HDKD_SECTION__KEY"
            problems.append(
                Problem(
                    f"{name} (environment): no such variable", None, text, f"environment {name}",
                    tuple(near), hint,
                )
            )  # fmt: skip
    return layer


def assignment_layer(assignments: Iterable[str], problems: list[Problem]) -> Layer:
    """The layer of ``--set key=value``; of two for one key the later one holds."""
    layer: Layer = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if equals:
            layer.update(_text(key.strip(), text, "--set"))
        else:
            problems.append(
                Problem(
                    f"--set {assignment}: has no value", None, assignment, "--set",
                    hint="write SECTION.KEY=VALUE or method=NAME",
                )
            )  # fmt: skip
    return layer


def _text(key: str, text: str, origin: str) -> Iterator[tuple[str, Given]]:
    for leaf, value in flatten(key, from_text(text, field_of(key))):
        yield leaf, Given(from_toml_value(value, field_of(leaf)), origin)


def flag_layer(flags: Mapping[str, Any]) -> Layer:
    """The layer of flags that were given."""
    return {
        FLAGS[flag]: Given(str(value) if isinstance(value, Path) else value, flag)
        for flag, value in flags.items()
        if value is not None
    }
