"""Code that a run folder names is imported only where the user trusts it.

A run folder may come from another user, and its settings may name a factory,
``package.module:factory``. A module is trusted if the user's own command line, environment or
settings file names it, or ``HDKD_TRUST_CODE`` (module names, separated by commas); with
``--trust-code`` all modules are that a run names. Settings that a program makes itself are its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from hdkd_cli.errors import UsageError

VARIABLE = "HDKD_TRUST_CODE"

_named_by_runs: dict[str, str] = {}  # factory → the settings file that names it
_trusted: set[str] = set()  # modules, or ALL of them
ALL = "*"


def note_factories(values: Iterable[Any], source: str) -> None:
    """Remember which factories the settings of a run name.

    Args:
        values: All values of the settings.
        source: The settings file, for messages.
    """
    _named_by_runs.update(dict.fromkeys(_factories(values), source))


def trust_factories(values: Iterable[Any]) -> None:
    """Trust the modules of the factories that these settings name: the user wrote them."""
    _trusted.update(_module(name) for name in _factories(values))


def trust_all() -> None:
    """Trust what any run names: the user said so."""
    _trusted.add(ALL)


@contextmanager
def own_trust() -> Iterator[None]:
    """What is trusted inside is forgotten afterwards: a command's trust is its own."""
    trusted, named = set(_trusted), dict(_named_by_runs)
    try:
        yield
    finally:
        _trusted.clear()
        _trusted.update(trusted)
        _named_by_runs.clear()
        _named_by_runs.update(named)


def trusting_environment(values: Iterable[Any]) -> dict[str, str]:
    """The variable by which a process of ours trusts what these settings name, as the user does."""
    modules = {_module(name) for name in _factories(values)} | _listed()
    return {VARIABLE: ",".join(sorted(modules))} if modules else {}


def refuse_untrusted(factory: str) -> None:
    """Called before the module of ``factory`` is imported.

    Raises:
        UsageError: a run names it, and it is not trusted.
    """
    if factory not in _named_by_runs:
        return
    module = _module(factory)
    packages = module.split(".")
    whole = {".".join(packages[: n + 1]) for n in range(len(packages))}
    if ALL in _trusted or module in _trusted or whole & _listed():
        return
    raise UsageError(
        f"{_named_by_runs[factory]}: names code to run, {factory}, which is not trusted",
        hint=f"if you know it, pass --trust-code (trust_code=True in Python) or set "
        f"{VARIABLE}={module}",
        subject=factory,
    )


def _factories(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        for text in value if isinstance(value, list | tuple) else (value,):
            if isinstance(text, str) and ":" in text:
                yield text


def _listed() -> set[str]:
    names = os.environ.get(VARIABLE, "").split(",")
    return {name.strip() for name in names} - {""}


def _module(factory: str) -> str:
    return factory.partition(":")[0]
