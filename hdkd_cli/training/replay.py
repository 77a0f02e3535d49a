"""Weights that follow those of another run: what of learned weights matters?

T terms, R records of a run's log.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hdkd_cli.choices import Replay
from hdkd_cli.errors import SettingsError
from hdkd_cli.method.terms import Terms
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.runs.metrics import read_metrics


@dataclass(frozen=True)
class ReplayedWeights:
    """The logged weights of a run, as a function of how far the schedule has got.

    Attributes:
        fraction_R: Fraction of the other run's schedule at each of its records, rising.
        raw_RT: Logarithm of its weights over those it started from, float32.
    """

    fraction_R: Tensor
    raw_RT: Tensor

    @classmethod
    def read(
        cls, path: Path, form: Replay, terms: Terms, initial_T: Tensor, seed: int
    ) -> ReplayedWeights:
        """What ``form`` keeps of the run at ``path``.

        Args:
            path: A run whose weights were logged to the end.
            form: See ``weights.replay_as``.
            terms: The terms of the run that follows; they must be the same.
            initial_T: The weights that both runs start from.
            seed: Of ``permuted``.

        Raises:
            RunError: there is no such run.
            SettingsError: it has other terms, or did not get to its end.
        """
        events = list(read_metrics(RunFolder.open(path).metrics))
        started = next((event for event in events if event["event"] == "run_started"), None)
        steps = [event for event in events if event["event"] == "step"]
        where = f"weights.replay = {str(path)!r}"
        if started is None or not steps or steps[-1]["step"] < started["total_steps"]:
            raise SettingsError(f"{where}: that run is not finished")
        if tuple(term["name"] for term in started["terms"]) != terms.names:
            raise SettingsError(f"{where}: that run has other loss terms")
        fraction_R = torch.tensor([event["step"] / started["total_steps"] for event in steps])
        weights_RT = torch.tensor([event["weights_T"] for event in steps])
        kinds = [term["kind"] for term in started["terms"]]
        return cls(fraction_R, _kept((weights_RT / initial_T.cpu()).log(), form, kinds, seed))

    def at(self, fraction: float) -> Tensor:
        """The log-ratios (T,) at a fraction of the schedule: those of the next record."""
        place = int(torch.searchsorted(self.fraction_R, fraction))
        return self.raw_RT[min(place, len(self.raw_RT) - 1)]


def _kept(raw_RT: Tensor, form: Replay, kinds: Sequence[str], seed: int) -> Tensor:
    if form == "exact":
        return raw_RT
    if form == "final":
        return raw_RT[-1].expand_as(raw_RT)
    kept_RT = raw_RT.clone()
    for kind in sorted(set(kinds)):
        members = [t for t, name in enumerate(kinds) if name == kind]
        if form == "group-means":
            kept_RT[:, members] = raw_RT[:, members].mean(1, keepdim=True)
        else:
            dealt = random.Random(f"{seed} {kind}").sample(members, len(members))
            kept_RT[:, members] = raw_RT[:, dealt]
    return kept_RT
