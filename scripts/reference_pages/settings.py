"""docs/reference/settings.md, and the table of own choices in docs/concepts/method.md."""

from __future__ import annotations

import inspect
import re
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hdkd_cli.settings import networks
from hdkd_cli.settings.datasets import DATASETS
from hdkd_cli.settings.methods import METHODS
from hdkd_cli.settings.schema import Settings
from hdkd_cli.settings.values import show
from reference_pages.markdown import cell, code, plain, table

LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def settings_page() -> str:
    """Every setting: name, type, default, meaning."""
    parts = [
        "# Settings\n",
        "Set with `--set section.key=value`, in a TOML file (`--config`, presets), or in the "
        "environment (`HDKD_SECTION__KEY`). `hdkd settings show` prints the values a run would "
        "use and who set them; `hdkd settings schema` prints all of this as JSON schema.\n",
        "[ours] marks what the papers leave open: "
        "[the method, section 6](../concepts/method.md#6-what-the-paper-leaves-open).\n",
    ]
    for section, field in Settings.model_fields.items():
        parts.append(f"## {section}\n")
        if section == "model":
            parts.append("`model.name` decides which of these apply.\n")
            for kind in get_args(networks.NetworkSettings):
                parts += [f"### {kind.__name__}\n", *_section(section, kind)]
        else:
            parts += _section(section, field.annotation)
    parts += ["## method\n", "`--set method=NAME` stands for:\n", _methods()]
    parts += ["## Defaults of the data sets\n", _dataset_defaults()]
    return "\n".join(parts)


def _section(section: str, kind: type[BaseModel]) -> list[str]:
    rows = [
        (
            code(f"{section}.{key}"),
            _setting_type(kind, key),
            _default(field),
            cell(field.description),
        )
        for key, field in kind.model_fields.items()
    ]
    return [
        f"{plain(inspect.getdoc(kind))}\n",
        table(("setting", "type", "default", "meaning"), rows),
    ]


def _setting_type(kind: type[BaseModel], key: str) -> str:
    return _schema_type(TypeAdapter(kind).json_schema()["properties"][key])


def _schema_type(schema: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(_schema_type(one) for one in schema["anyOf"])
    if "const" in schema:
        return code(schema["const"])
    if "enum" in schema:
        return ", ".join(code(choice) for choice in schema["enum"])
    if "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])} × {_schema_type(schema['prefixItems'][0])}"
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_schema_type(schema['items'])}"
    limits = [f"{sign} {schema[name]:g}" for name, sign in LIMITS.items() if name in schema]
    names = {
        "string": "text", "integer": "integer", "number": "number", "boolean": "true or false",
        "null": "absent", "object": "table",
    }  # fmt: skip
    return " ".join([names[str(kind)], *([", ".join(limits)] if limits else [])])


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "required"
    return "" if default is None else code(show(default))


def _methods() -> str:
    rows = [
        (code(name), ", ".join(
            code(f"{section}.{key}={show(value)}")
            for section, keys in sections.items()
            for key, value in keys.items()
        ))
        for name, sections in METHODS.items()
    ]  # fmt: skip
    return table(("method", "settings"), rows)


def _dataset_defaults() -> str:
    rows = [
        (code(name), ", ".join(code(f"{k}={show(v)}") for k, v in spec.defaults.items()))
        for name, spec in DATASETS.items()
    ]
    return table(("data.name", "what it changes"), rows)


def own_choices() -> str:
    """Every setting that is marked [ours]."""
    rows = []
    kinds = [
        (section, kind)
        for section, field in Settings.model_fields.items()
        for kind in (
            get_args(networks.NetworkSettings) if section == "model" else [field.annotation]
        )
    ]
    for section, kind in kinds:
        for key, field in kind.model_fields.items():
            if "[ours]" in (field.description or ""):
                meaning = cell((field.description or "").replace("[ours]", ""))
                meaning = re.sub(r" +([.,;)])", r"\1", meaning)
                rows.append((code(f"{section}.{key}"), _default(field), meaning))
    return table(("setting", "default", "choice"), rows)
