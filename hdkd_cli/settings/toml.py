"""Settings as TOML text, and back: what a run folder keeps to re-create its run.

All settings are written, absent ones as ``"none"``: the file stays true when a default changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomlkit
from tomlkit.items import Table

from hdkd_cli.errors import Problem, SettingsError
from hdkd_cli.reading import parse_toml
from hdkd_cli.settings.keys import SECTIONS
from hdkd_cli.settings.layers import combine
from hdkd_cli.settings.schema import Settings
from hdkd_cli.settings.sources import table_layer
from hdkd_cli.settings.values import NONE


def to_toml(settings: Settings, origin: Mapping[str, str] | None = None) -> str:
    """Settings as TOML; with ``origin`` (``Resolved.origin``) each line says its layer."""
    document = tomlkit.document()
    document["schema"] = Settings.schema_version
    for section in SECTIONS:
        values = getattr(settings, section).model_dump(mode="json")
        document[section] = _table(values, section, origin or {})
    return tomlkit.dumps(document)


def _table(values: Mapping[str, Any], prefix: str, origin: Mapping[str, str]) -> Table:
    table = tomlkit.table()
    for name, value in values.items():
        key = f"{prefix}.{name}"
        if isinstance(value, dict) and key not in origin:
            table[name] = _table(value, key, origin)
            continue
        item = tomlkit.item(NONE if value is None else value)
        if key in origin:
            item.comment("".join(c if c.isprintable() else " " for c in origin[key]))
        table.add(name, item)
    return table


def from_toml(text: str, source: str = "settings") -> Settings:
    """Settings from the text that ``to_toml`` wrote.

    Args:
        text: TOML.
        source: Where it is from, for messages.

    Raises:
        SettingsError: it is not TOML, or some settings are wrong: all of them are listed.
    """
    tables = parse_toml(text, source, SettingsError)
    problems: list[Problem] = []
    layer = table_layer(tables, source, problems)
    return combine([layer], problems).settings
