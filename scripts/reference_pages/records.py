"""docs/reference/records.md: every shape that is printed or written."""

from __future__ import annotations

import dataclasses
import inspect
import types
from typing import Any

from hdkd_cli.evaluation import policy, times
from hdkd_cli.records import (
    audit,
    comparison,
    doctor,
    evaluation,
    export,
    prediction,
    profile,
    settings,
    study,
    training,
)
from hdkd_cli.records.base import Part, Record
from hdkd_cli.training import events
from reference_pages.markdown import cell, code, docstring, plain, table, type_name

# In the order of the page.
SUBJECTS = (
    training, evaluation, comparison, study, prediction, audit, profile, export, settings, doctor,
    policy, times,
)  # fmt: skip


def records_page() -> str:
    """Every shape that is printed or written."""
    parts = [
        "# Records\n",
        "Everything that is printed or written as data. `schema` names the shape and its version; "
        "fields may be added, none is renamed. From Python these are the classes of "
        "`hdkd_cli.records` and `ExitPolicy`.\n",
    ]
    kinds = [kind for module in SUBJECTS for kind in _classes(module, Part)]
    shapes = [kind for kind in kinds if issubclass(kind, Record)]
    rows = [
        (code(kind.schema_id), f"[{kind.__name__}](#{kind.__name__.lower()})",
         cell(inspect.getdoc(kind)).split(". ")[0].rstrip("."))
        for kind in shapes
    ]  # fmt: skip
    parts.append(table(("schema", "class", ""), sorted(rows)))
    parts += [_model(kind) for kind in kinds]
    parts += [
        "## Events\n",
        "The lines of `metrics.jsonl`; `event` names the kind. From Python a sink is called with "
        "these classes of `hdkd_cli.training.events`.\n",
    ]
    for kind in _classes(events, events.Event):
        parts += [f"### {code(kind.kind)}\n", f"```\n{_fields(kind)}\n```\n", docstring(kind)]
    return "\n".join(parts)


def _classes(module: types.ModuleType, base: type) -> list[Any]:
    """The classes that a module defines, in order."""
    bases = (Part, Record, events.Event)
    return [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, base)
        and kind.__module__ == module.__name__
        and kind not in bases
    ]


def _model(kind: Any) -> str:
    rows = [
        (
            code(field.serialization_alias or key),
            type_name(field.annotation),
            cell(field.description),
        )
        for key, field in kind.model_fields.items()
    ]
    shape = f"`schema`: `{kind.schema_id}`.\n\n" if issubclass(kind, Record) else ""
    text = plain(inspect.getdoc(kind))
    return f"## {kind.__name__}\n\n{text}\n\n{shape}{table(('field', 'type', 'meaning'), rows)}"


def _fields(kind: Any) -> str:
    return "\n".join(f"{field.name}: {field.type}" for field in dataclasses.fields(kind))
