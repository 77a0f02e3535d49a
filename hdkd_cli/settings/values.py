"""Text to values and back: the grammar of ``--set``, of the environment and of messages.

Text is a TOML value if it reads as one, else it is itself. The setting it is for decides the rest:
text settings need no quotes, lists may be written ``1,2,4``, and ``none`` (or nothing) is the
absent value of an optional setting, in files too, since TOML has no null.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic.fields import FieldInfo

from hdkd_cli.errors import SettingsError
from hdkd_cli.reading import parse_toml
from hdkd_cli.settings.keys import is_list, is_optional, is_text

NONE = "none"


def from_text(text: str, field: FieldInfo | None) -> Any:
    """The value that ``text`` stands for.

    Args:
        text: What a person wrote after the equals sign.
        field: The setting it is for; None: an unknown one, or one whose type is free.
    """
    text = text.strip()
    if field is None:
        return _toml_or_text(text)
    if is_optional(field) and text.lower() in ("", NONE):
        return None
    value = _toml_or_text(text)
    if is_text(field):
        return value if isinstance(value, str) else text
    if is_list(field) and not isinstance(value, list):
        return [_toml_or_text(item.strip()) for item in text.split(",")] if text else []
    return value


def from_toml_value(value: Any, field: FieldInfo | None) -> Any:
    """``value`` as a TOML file gave it, with ``"none"`` read as absent where that is allowed."""
    absent = isinstance(value, str) and value.lower() == NONE
    return None if absent and field is not None and is_optional(field) else value


def _toml_or_text(text: str) -> Any:
    if text.lower() in ("true", "false"):  # TOML knows the lower-case words only
        return text.lower() == "true"
    try:
        table = parse_toml(f"value = {text}", "", SettingsError)
    except SettingsError:
        return text
    return table["value"] if len(table) == 1 else text


def show(value: Any) -> str:
    """``value`` as it would be written in a settings file."""
    return NONE if value is None else json.dumps(value, ensure_ascii=False, default=str)
