"""Rounds of continuations, which the shared parameters of the weights learn from.

A round tries every parameter up and down, and all as they are: training goes on for
``weights.horizon`` steps at the rate of the moment and then for twice as many while the rate falls
to zero (a network is judged as it would be at the end of training; where the rate falls in fewer
steps, whatever slows training looks good, see docs/log.md), all on the images that the run would
see next. Then everything is put back, the parameters move, and the run goes on as if nothing had
been tried. M parameters, K exits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from hdkd_cli.data import ImageData, Stream
from hdkd_cli.method.terms import Term
from hdkd_cli.method.tradeoffs import Tradeoffs, Tried, relative_loss
from hdkd_cli.settings.schema import WeightSettings
from hdkd_cli.training.events import TradeoffsMoved
from hdkd_cli.training.monitor import refined_on_val
from hdkd_cli.training.optimizer import set_rate
from hdkd_cli.training.schedule import round_steps
from hdkd_cli.training.signals import StopRequest
from hdkd_cli.training.state import TrainState
from hdkd_cli.training.step import new_totals, take_step

HORIZON = 0.05
"""Part of the schedule that a continuation spends at the rate of the moment."""
ANNEAL = 2
"""Steps in which the rate then falls to zero, per step before."""


def round_due(state: TrainState, total_steps: int) -> bool:
    """Whether a round is held before the coming step, and was not held yet."""
    if state.tradeoffs is None:
        return False
    steps = round_steps(total_steps, state.settings.weights.rounds)
    return state.step in steps and int(state.tradeoffs.rounds) <= steps.index(state.step)


def steps_of_rounds(weights: WeightSettings, terms: Sequence[Term], total_steps: int) -> int:
    """Steps that all continuations of a run take, beside the run's own ``total_steps``."""
    horizon, anneal = _lengths(weights, total_steps)
    continuations = len(Tradeoffs(terms).probes(weights.probe))
    return weights.rounds * continuations * (horizon + anneal)


def _lengths(weights: WeightSettings, total_steps: int) -> tuple[int, int]:
    """Steps of a continuation at the rate of the moment, and while it falls to zero."""
    horizon = weights.horizon or max(1, round(HORIZON * total_steps))
    return horizon, ANNEAL * horizon


def hold_round(
    state: TrainState, data: ImageData, stream: Stream, lr: float, stop: StopRequest
) -> TradeoffsMoved | None:
    """Try every parameter up and down, put everything back, and move the parameters.

    Args:
        state: What is trained; afterwards only its weights have changed.
        data: The images.
        stream: What the steps read.
        lr: The learning rate of the moment.
        stop: Set by signals: the round is given up, and held anew when the run goes on.

    Returns:
        What was found; None if it was given up.
    """
    began = time.perf_counter()
    tradeoffs, settings = state.tradeoffs, state.settings.weights
    assert tradeoffs is not None
    found = try_out(state, tradeoffs, data, stream, lr, stop)
    if found is None:
        return None
    tradeoffs.move(found, settings.probe, settings.noise)
    state.weights.raw_T.copy_(tradeoffs.raw(tradeoffs.phi_M))
    return TradeoffsMoved(
        step=state.step,
        names=tradeoffs.names,
        phi_M=tuple(tradeoffs.phi_M.tolist()),
        here=found.here if math.isfinite(found.here) else None,
        up_M=_finite(found.up_M),
        down_M=_finite(found.down_M),
        seconds=time.perf_counter() - began,
    )


def try_out(
    state: TrainState,
    tradeoffs: Tradeoffs,
    data: ImageData,
    stream: Stream,
    lr: float,
    stop: StopRequest,
    *,
    skipped_steps: int = 0,
) -> Tried | None:
    """The objective after continuations with the parameters as they are, each up, and each down.

    ``state`` is afterwards what it was. None: a signal to any rank ended it. ``skipped_steps``
    makes the continuations read later batches than the run is about to.
    """
    before = state.snapshot()
    found = []
    try:
        for phi_M in tradeoffs.probes(state.settings.weights.probe):
            state.restore(before)
            state.weights.raw_T.copy_(tradeoffs.raw(phi_M))
            if not _go_on(state, stream, lr, stop, skipped_steps):
                return None
            found.append(_judged(state, data))
    finally:
        state.restore(before)
    up_M, down_M = torch.tensor(found[1:]).view(2, -1)
    return Tried(found[0], up_M, down_M)


def _go_on(
    state: TrainState, stream: Stream, lr: float, stop: StopRequest, skipped_steps: int
) -> bool:
    """One continuation; False if a signal to any rank ended it."""
    horizon, anneal = _lengths(state.settings.weights, state.schedule.total)
    batches = stream.batches(state.step + skipped_steps)
    totals = new_totals(state)
    for step in range(horizon + anneal):
        falling = max(0, step - horizon + 1)
        set_rate(state.optimizer, lr * (1 - falling / (anneal + 1)))
        take_step(state, batches, iter(()), totals)
        if state.ranks.largest(stop.signum or 0):
            return False
    return True


def _judged(state: TrainState, data: ImageData) -> float:
    """The objective on all validation images, in evaluation mode; infinite if training diverged."""
    if int(state.first_bad_step) >= 0:
        return math.inf
    return float(relative_loss(torch.tensor(refined_on_val(state, data))))


def _finite(values_M: Tensor) -> tuple[float | None, ...]:
    return tuple(value if math.isfinite(value) else None for value in values_M.tolist())
