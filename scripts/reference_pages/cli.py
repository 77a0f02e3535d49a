"""docs/reference/cli.md: every verb with its options."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

import typer

from hdkd_cli import app
from reference_pages.markdown import cell, code, plain, table, type_name


def cli_page() -> str:
    """Every verb, with every argument and option."""
    everywhere = app.app.registered_callback
    assert everywhere is not None
    parts = [
        "# Command line\n",
        f"{plain(inspect.getdoc(everywhere.callback))}\n",
        "Exit codes and pipelines are in [Deploy](../guide/deploy.md#in-a-pipeline). RUN is a run "
        "folder, one checkpoint in it, or `-` for a path from stdin. `-h` and `--help` say this, "
        "`--version` the version. Before the verb:\n",
        _parameters(everywhere.callback),
    ]
    for words, verb in sorted(_verbs("hdkd", app.app)):
        names = [_named(key, info) for key, _, info, _ in _given(verb) if not _is_option(info)]
        parts += [
            f"## {words}\n",
            f"```\n{' '.join([words, *names])} [OPTIONS]\n```\n",
            f"{plain(inspect.getdoc(verb))}\n",
            _parameters(verb),
        ]
    return "\n".join(parts)


def _verbs(prefix: str, group: typer.Typer) -> Iterator[tuple[str, Any]]:
    for verb in group.registered_commands:
        if not verb.hidden:
            yield f"{prefix} {verb.name}", verb.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _verbs(f"{prefix} {inner.name}", inner.typer_instance)


def _given(verb: Any) -> Iterator[tuple[str, Any, Any, Any]]:
    """Each parameter of a verb: name, type, what Typer is told about it, default."""
    signature = inspect.signature(verb, eval_str=True)
    for key, parameter in signature.parameters.items():
        hint, info = get_args(parameter.annotation)[:2]
        default = parameter.default
        yield key, hint, info, None if default is inspect.Parameter.empty else default


def _is_option(info: Any) -> bool:
    return isinstance(info, typer.models.OptionInfo)


def _named(key: str, info: Any) -> str:
    """What a parameter is called on the command line."""
    if _is_option(info):
        # the first name stands where the default would, for Typer's Annotated form
        return ", ".join([info.default, *info.param_decls])
    return str(info.metavar or key.upper())


def _parameters(verb: Any) -> str:
    rows = []
    for key, hint, info, default in _given(verb):
        value = (
            ""
            if not _is_option(info) or hint is bool or hint == bool | None
            else _value(hint, info)
        )
        text = cell(info.help)
        if default not in (None, False) and "Default" not in text:
            text += f" Default: {default}."
        rows.append((code(_named(key, info)), value, text))
    return table(("", "value", "meaning"), rows) if rows else ""


def _value(hint: Any, info: Any) -> str:
    """What an option takes."""
    if info.metavar:
        return code(info.metavar)
    kinds = [
        one for one in (get_args(hint) if _is_union(hint) else [hint]) if one is not type(None)
    ]
    return type_name(kinds[0])


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)
