"""What is wrong with settings, in one line each: the key, the value, its layer, what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import ValidationError

from hdkd_cli.errors import Problem
from hdkd_cli.settings.keys import SECTIONS, closest, default_of, field_of, kind_of, kinds
from hdkd_cli.settings.schema import Settings
from hdkd_cli.settings.sources import DEFAULT, Given, Layer
from hdkd_cli.settings.values import show

PATTERNS = ("torchvision:MODEL", "timm:MODEL", "package.module:factory")
"""Names of networks beside the architectures of this package."""

MAX_SHOWN = 200
"""Characters of a value in a message."""


def unknown_key(key: str, given: Layer, known: list[str]) -> Problem:
    """``key`` is no setting; name the closest of ``known`` with their values."""
    value, origin = given[key]
    if key in SECTIONS:
        return _problem(key, given, "is a section", hint=f"set {key}.KEY")
    section = key.partition(".")[0]
    if field_of(key) is not None:  # of another network
        fields = [other for other in known if other.startswith(f"{section}.")]
        only = f"{_where(f'{section}.name', given)} has only {', '.join(fields)}"
        return Problem(f"{key} ({origin}): {only}", key, value, origin)
    near = tuple(closest(key, known if "." in key else [*known, *SECTIONS]))
    shown = ", ".join(_with_value(other, given) for other in near)
    hint = f"closest: {shown}" if near else "`hdkd settings show` lists all"
    own = [name.partition(".")[2] for name in known if name.startswith(f"{section}.")]
    if own and not near:
        hint = f"{section} has {', '.join(own)}"
    return Problem(f"{key} ({origin}): no such setting", key, value, origin, near, hint)


def unknown_network(given: Layer) -> Problem:
    """``model.name`` is none of the networks there are."""
    names = [
        name
        for kind in kinds("model")
        for name in get_args(kind.model_fields["name"].annotation)
        if isinstance(name, str)
    ]
    near = tuple(difflib.get_close_matches(str(given["model.name"].value), names, n=1))
    hint = f"closest: {show(near[0])}; " if near else ""
    choices = ", ".join([*map(show, names), *map(show, PATTERNS)])
    return _problem("model.name", given, "no such network", f"{hint}there are: {choices}", near)


def not_text(key: str, given: Layer) -> Problem:
    """A value holds bytes that are no text, such as a file name in another encoding."""
    value, origin = given[key]
    return Problem(f"{key} ({origin}): is not valid Unicode text", key, value, origin)


def explain(error: ValidationError, given: Layer) -> Iterator[Problem]:
    """One problem for each thing that pydantic found."""
    for problem in error.errors():
        section, *rest = map(str, problem["loc"])
        if len(kinds(section)) > 1:
            rest = rest[1:]  # the tag of the kind
        message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if not rest:  # several settings of a section that do not fit together
            yield Problem(f"{section}: {message}{_mentioned(section, message, given)}", section)
            continue
        key = f"{section}.{rest[0]}"
        if problem["type"] == "missing" and len(rest) == 1:
            name = f" when {_where(f'{section}.name', given)}" if f"{section}.name" in given else ""
            yield Problem(f"{key}: must be given{name}", key)
            continue
        message = f"{message[0].lower()}{message[1:]}"
        if len(rest) > 1:  # an item of a list
            message = "is missing" if problem["type"] == "missing" else message
            message = f"item {int(rest[1]) + 1} {message}"
        yield _problem(key, given, message)


def contradictions(settings: Settings, given: Layer) -> Iterator[Problem]:
    """What no single section can see: settings of different sections that exclude each other."""
    if settings.weights.init == "dbt" and settings.objective.teachers != "last":
        yield _problem(
            "weights.init",
            given,
            'needs objective.teachers = "last" (distillation from the last exit only); '
            + _where("objective.teachers", given),
        )
    data = settings.data
    if data.val_per_class == 0 and data.val_indices is None:
        for key, in_use in (
            ("weights.learned", settings.weights.learned),
            ("data.calibration_fraction", data.calibration_fraction > 0),
        ):
            if in_use:
                why = "needs validation images; " + _where("data.val_per_class", given)
                yield _problem(key, given, why)
    mixed = settings.training.mixup or settings.training.cutmix
    if mixed and settings.objective.extra_terms:
        yield _problem(
            "objective.extra_terms",
            given,
            "losses of your own read one label per image, which training.mixup and training.cutmix "
            "mix",
        )
    if settings.training.regime == "mixed" and settings.weights.by_continuations:
        yield _problem(
            "weights.learner",
            given,
            "with training.regime = mixed, the first continuations would train one exit alone",
            hint='use weights.learner = "hypergradient", which waits for the other exits',
        )
    if (
        settings.training.regime == "disjoint"
        and settings.weights.learned
        and settings.objective.teachers == "none"
        and not settings.objective.extra_terms
    ):
        yield _problem(
            "weights.learned",
            given,
            "with training.regime = disjoint and objective.teachers = none, each loss trains its "
            "own head alone, and its weight is but a learning rate",
            hint="set weights.learned=false, or let exits teach each other",
        )


def _problem(
    key: str,
    given: Layer,
    message: str,
    hint: str | None = None,
    near: tuple[str, ...] = (),
) -> Problem:
    value, origin = _held(key, given)
    return Problem(f"{_where(key, given)}: {message}", key, value, origin, near, hint)


def _mentioned(section: str, message: str, given: Layer) -> str:
    """The settings of ``section`` that ``message`` names, with value and layer."""
    fields = dict.fromkeys(name for kind in kinds(section) for name in kind.model_fields)
    keys = [f"{section}.{name}" for name in fields if re.search(rf"\b{name}\b", message)]
    return f"; {', '.join(_where(key, given) for key in keys)}" if keys else ""


def _held(key: str, given: Layer) -> Given:
    section = key.partition(".")[0]
    name = given.get(f"{section}.name")
    kind = kind_of(section, name.value) if name is not None and len(kinds(section)) > 1 else None
    return given.get(key, Given(default_of(key, kind), DEFAULT))


def _where(key: str, given: Layer) -> str:
    value, origin = _held(key, given)
    return f"{key} = {_brief(value)} ({origin})"


def _brief(value: Any) -> str:
    text = show(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _with_value(key: str, given: Layer) -> str:
    if key in SECTIONS or "." not in key:
        return key
    return f"{key} = {show(_held(key, given).value)}"
