"""Rounds of short continuations, which the shared parameters of the weights learn from.

A round tries every parameter up and down: training goes on for ``weights.horizon`` steps at the
rate of the moment and then for half as many while the rate falls to zero (a network is judged as it
would be at the end of training), all on the images that the run would see next. Then everything is
put back, the parameters move, and the run goes on as if nothing had been tried.
M parameters, K exits.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from hdkd_cli.data import ImageData, Stream
from hdkd_cli.method.tradeoffs import Tradeoffs, relative_loss
from hdkd_cli.training.events import TradeoffsMoved
from hdkd_cli.training.monitor import refined_on_val
from hdkd_cli.training.optimizer import set_rate
from hdkd_cli.training.schedule import round_steps
from hdkd_cli.training.signals import StopRequest
from hdkd_cli.training.state import TrainState
from hdkd_cli.training.step import new_totals, take_step

LONGEST_HORIZON = 150
"""Steps of a continuation where an epoch is longer: enough to reproduce what whole runs say."""


def round_due(state: TrainState, total_steps: int) -> bool:
    """Whether a round is held before the coming step, and was not held yet."""
    if state.tradeoffs is None:
        return False
    steps = round_steps(total_steps, state.settings.weights.rounds)
    return state.step in steps and int(state.tradeoffs.rounds) <= steps.index(state.step)


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
    objective_M2 = try_out(state, tradeoffs, data, stream, lr, stop)
    if objective_M2 is None:
        return None
    tradeoffs.move(objective_M2[:, 0] - objective_M2[:, 1], settings.probe, settings.noise)
    state.weights.raw_T.copy_(tradeoffs.raw(tradeoffs.phi_M))
    return TradeoffsMoved(
        step=state.step,
        names=tradeoffs.names,
        phi_M=tuple(tradeoffs.phi_M.tolist()),
        up_M=_finite(objective_M2[:, 0]),
        down_M=_finite(objective_M2[:, 1]),
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
) -> Tensor | None:
    """The objective after continuations with each parameter up and down, (M, 2) on the CPU.

    ``state`` is afterwards what it was. None: a signal to any rank ended it. ``skipped_steps``
    makes the continuations read later batches than the run is about to.
    """
    before = state.snapshot()
    found_M2 = []
    try:
        for pair in tradeoffs.probes(state.settings.weights.probe):
            for phi_M in pair:
                state.restore(before)
                state.weights.raw_T.copy_(tradeoffs.raw(phi_M))
                if not _go_on(state, stream, lr, stop, skipped_steps):
                    return None
                found_M2.append(_judged(state, data))
    finally:
        state.restore(before)
    return torch.stack(found_M2).view(-1, 2)


def _go_on(
    state: TrainState, stream: Stream, lr: float, stop: StopRequest, skipped_steps: int
) -> bool:
    """One continuation; False if a signal to any rank ended it."""
    horizon = state.settings.weights.horizon or min(stream.steps_per_epoch, LONGEST_HORIZON)
    anneal = horizon // 2
    batches = stream.batches(state.step + skipped_steps)
    totals = new_totals(state)
    for step in range(horizon + anneal):
        falling = max(0, step - horizon + 1)
        set_rate(state.optimizer, lr * (1 - falling / (anneal + 1)))
        take_step(state, batches, iter(()), totals)
        if state.ranks.largest(stop.signum or 0):
            return False
    return True


def _judged(state: TrainState, data: ImageData) -> Tensor:
    """The objective on all validation images, in evaluation mode; infinite if training diverged."""
    if int(state.first_bad_step) >= 0:
        return torch.tensor(torch.inf)
    return relative_loss(torch.tensor(refined_on_val(state, data)))


def _finite(values_M: Tensor) -> tuple[float | None, ...]:
    return tuple(value if math.isfinite(value) else None for value in values_M.tolist())
