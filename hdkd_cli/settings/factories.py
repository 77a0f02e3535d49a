"""Code from outside that settings name: ``package.module:factory``."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from importlib import import_module
from typing import Any, TypeVar

from hdkd_cli.errors import HdkdError, SettingsError
from hdkd_cli.settings.trust import refuse_untrusted

FACTORY = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"

T = TypeVar("T")


def _told(problem: BaseException) -> str:
    """An exception of foreign code, with the place it comes from."""
    said = f"{type(problem).__name__}: {problem}"
    if isinstance(problem, SyntaxError):  # its text has the place
        return said
    place = traceback.extract_tb(problem.__traceback__)[-1]
    return f"{said} ({place.filename}, line {place.lineno})"


def call_factory(
    key: str,
    name: str,
    arguments: Mapping[str, Any],
    options: Mapping[str, Any],
    returns: type[T],
) -> T:
    """What the factory ``name`` returns.

    Args:
        key: The setting that names it; further arguments come from its section's ``options``.
        name: ``package.module:factory``.
        arguments: What every such factory gets, by keyword.
        options: Further keyword arguments, of this one.
        returns: What it has to return.

    Raises:
        SettingsError: it cannot be imported or called so, raises, or returns something else.
        UsageError: a run names it, and it is not trusted.
        HdkdError: raised by the factory itself.
    """
    where = f"{key} = {name!r}"
    wanted = f"{returns.__module__.rpartition('.')[0]}.{returns.__name__}"
    if taken := sorted(arguments.keys() & options.keys()):
        section = key.partition(".")[0]
        raise SettingsError(
            f"{section}.options: {', '.join(taken)} cannot be set here (other settings decide)"
        )
    refuse_untrusted(name)
    module_name, _, attribute = name.partition(":")
    try:
        module = import_module(module_name)
    except ImportError as problem:
        raise SettingsError(
            f"{where}: {module_name} cannot be imported ({problem})",
            hint="install it or put its folder on PYTHONPATH",
            subject=name,
        ) from problem
    except (Exception, SystemExit) as problem:
        raise SettingsError(
            f"{where}: importing {module_name} raised {_told(problem)}", subject=name
        ) from problem
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise SettingsError(
            f"{where}: {module_name} has no function {attribute!r}",
            hint=f"name one that returns a {returns.__name__}",
            subject=name,
        )
    arguments = {**arguments, **options}
    try:
        inspect.signature(factory).bind(**arguments)
    except (TypeError, ValueError) as problem:
        raise SettingsError(
            f"{where}: the factory does not take {', '.join(arguments)} ({problem})"
        ) from problem
    try:
        made = factory(**arguments)
    except HdkdError:
        raise
    except (Exception, SystemExit) as problem:
        raise SettingsError(f"{where}: it raised {_told(problem)}") from problem
    if not isinstance(made, returns):
        raise SettingsError(f"{where}: returned a {type(made).__name__}, a {wanted} is needed")
    return made
