"""The names of all settings, read off the schema: dotted keys, their types, the closest ones.

A *key* is ``section.field``; the members of a free-form mapping (``model.options``) are keys too,
``section.field.member``. A section whose class depends on its ``name`` has several *kinds*.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from hdkd_cli.settings.networks import settings_of_network
from hdkd_cli.settings.schema import Settings
from hdkd_cli.settings.section import Section

SECTIONS: tuple[str, ...] = tuple(Settings.model_fields)


@cache
def kinds(section: str) -> tuple[type[Section], ...]:
    """The classes a section can be of: one, or one for each kind of network."""
    return tuple(_section_classes(Settings.model_fields[section].annotation))


def _section_classes(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _section_classes(argument)


def kind_of(section: str, name: Any) -> type[Section] | None:
    """The class of ``section`` when its ``name`` is ``name``; None if no class takes that name."""
    if len(kinds(section)) == 1:
        return kinds(section)[0]
    return settings_of_network(name)


def default_of(key: str, kind: type[Section] | None = None) -> Any:
    """The schema's own value of ``key``; None where it has none.

    Args:
        key: The setting.
        kind: The class its section has; None: that of the schema's own settings.
    """
    section, _, name = key.partition(".")
    kind = kind or type(getattr(Settings(), section))
    field = kind.model_fields.get(name)
    if field is None or field.is_required():
        return None
    return field.get_default(call_default_factory=True)


def field_of(key: str) -> FieldInfo | None:
    """The schema's description of ``key``, whatever the kind of its section; None if unknown."""
    section, *rest = key.split(".", 2)
    if section not in SECTIONS or not rest:
        return None
    for kind in kinds(section):
        field = kind.model_fields.get(rest[0])
        if field is not None and (len(rest) == 1 or is_mapping(field)):
            return field
    return None


def is_optional(field: FieldInfo) -> bool:
    """Whether the setting may be absent (None)."""
    return type(None) in get_args(field.annotation)


def is_mapping(field: FieldInfo) -> bool:
    """Whether the setting is a mapping whose members have names of their own."""
    return get_origin(field.annotation) is dict


def is_list(field: FieldInfo) -> bool:
    """Whether the setting is a list of values."""
    return get_origin(field.annotation) is tuple


def is_text(field: FieldInfo) -> bool:
    """Whether the setting is text, or one word of a few."""
    if is_mapping(field) or is_list(field):
        return False
    choices = (field.annotation, *get_args(field.annotation))
    return any(choice is str or get_origin(choice) is Literal for choice in choices)


def flatten(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """``key`` and ``value`` as (key, value) pairs of single settings; tables are taken apart."""
    field = field_of(key)
    opens = key in SECTIONS or (field is not None and is_mapping(field) and key.count(".") == 1)
    if opens and isinstance(value, Mapping):
        for name, inner in value.items():
            yield from flatten(f"{key}.{name}", inner)
    else:
        yield key, value


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of tables that ``flatten`` took apart."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *tables, name = key.split(".", 2)
        place: Any = tree
        for table in tables:
            place = place.setdefault(table, {}) if isinstance(place, dict) else None
        if isinstance(place, dict):  # else a lower layer gave a scalar, which is reported
            place[name] = value
    return tree


def leaves(settings: Settings) -> dict[str, Any]:
    """Every single setting: key → value."""
    tree = {section: dict(getattr(settings, section)) for section in SECTIONS}
    return dict(pair for section in SECTIONS for pair in flatten(section, tree[section]))


def closest(key: str, known: Iterable[str]) -> list[str]:
    """What was probably meant by ``key``: best first, empty if nothing is near."""
    known = list(known)
    name = key.rpartition(".")[2]
    same_name = [other for other in known if other.rpartition(".")[2] == name]
    if same_name:
        return same_name
    near = difflib.get_close_matches(key, known, n=1)
    if near and _alike(key.partition(".")[2] or key, near[0].partition(".")[2] or near[0]):
        return near
    by_name = {other.rpartition(".")[2]: other for other in known}
    return [by_name[match] for match in difflib.get_close_matches(name, by_name, n=1)]


def _alike(name: str, other: str) -> bool:
    """Whether names are alike without their section, which makes any two of it alike."""
    return difflib.SequenceMatcher(None, name, other).ratio() > 0.5
