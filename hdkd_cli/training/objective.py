"""The loss terms of a run, those from outside included."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

from hdkd_cli.errors import SettingsError
from hdkd_cli.method.hypergradient import forward_mode
from hdkd_cli.method.terms import Annealing, TermGroup, Terms
from hdkd_cli.settings.factories import call_factory
from hdkd_cli.settings.schema import ObjectiveSettings

KEY = "objective.extra_terms"
HINT = "a group computes its losses with torch alone, differentiable in forward mode"


def build_terms(
    settings: ObjectiveSettings, num_exits: int, num_classes: int, device: torch.device
) -> Terms:
    """The terms that ``settings`` describe.

    Raises:
        SettingsError: a group from outside cannot be had, or does not do what a group has to.
    """
    extra = []
    for name in settings.extra_terms:
        group = call_factory(KEY, name, {"num_exits": num_exits}, {}, TermGroup)  # type: ignore[type-abstract]
        _try_out(name, group, num_exits, num_classes)
        extra.append(group)
    annealing = None
    if settings.temperature_growth is not None:
        annealing = Annealing(
            torch.tensor(settings.temperature, device=device),
            settings.temperature_growth,
            settings.temperature_until,
        )
    try:
        return Terms(
            num_exits,
            settings.teachers,
            settings.temperature,
            extra,
            settings.label_smoothing,
            annealing,
        )
    except ValueError as problem:
        raise SettingsError(f"{KEY}: {problem}") from None


def _try_out(name: str, group: TermGroup, num_exits: int, num_classes: int) -> None:
    """Compute the group once, in forward mode, as the learning of the weights does."""
    logits_KBC = torch.zeros(num_exits, 2, num_classes)
    labels_B = torch.zeros(2, dtype=torch.int64)
    count = len(group.terms)
    try:
        with forward_mode():
            dual = forward_ad.make_dual(logits_KBC, torch.ones_like(logits_KBC))  # type: ignore[no-untyped-call]
            values_T = group(dual, labels_B)
            followed = forward_ad.unpack_dual(values_T).tangent is not None  # type: ignore[no-untyped-call]
    except Exception as problem:
        raise SettingsError(
            f"{KEY} = {name!r}: it raised {type(problem).__name__}: {problem}",
            hint=HINT,
        ) from problem
    if not followed:
        raise SettingsError(f"{KEY} = {name!r}: does not depend on the logits", hint=HINT)
    if count == 0 or values_T.shape != (count,):
        raise SettingsError(
            f"{KEY} = {name!r}: returned {tuple(values_T.shape)} for {count} terms; one value for "
            "each of at least one term is needed"
        )
