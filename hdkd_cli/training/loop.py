"""The training loop, top to bottom: step, weights, evaluate, save."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import NoReturn

import torch

from hdkd_cli.data import Batch, ImageData, Stream
from hdkd_cli.errors import DivergedError, InterruptedRun
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.runs.metrics import MetricsLog
from hdkd_cli.training.continuations import hold_round, round_due
from hdkd_cli.training.events import (
    CheckpointSaved,
    Evaluated,
    RunEnded,
    Sink,
    StepLogged,
    WeightsUpdated,
)
from hdkd_cli.training.monitor import on_val
from hdkd_cli.training.optimizer import set_rate
from hdkd_cli.training.schedule import learning_rate
from hdkd_cli.training.signals import StopRequest
from hdkd_cli.training.state import TrainState
from hdkd_cli.training.step import new_totals, take_step

TIME_UP = 1
"""What ranks tell each other when ``training.max_minutes`` are over: below the number of every
signal that is waited for."""


def train_to_end(
    run: RunFolder,
    state: TrainState,
    data: ImageData,
    metrics: MetricsLog | None,
    emit: Sink,
    stop: StopRequest,
) -> bool:
    """Train from ``state.step`` to the end of the schedule, ``training.max_steps`` or
    ``training.max_minutes``.

    Every step's order, augmentation and random numbers are functions of (seed, step) and the number
    of ranks, so a run that was interrupted anywhere and resumed ends with the same bits as one that
    was not. All ranks run this loop side by side; the one with ``metrics`` saves.

    Args:
        run: The run's folder.
        state: What is trained; changed in place.
        data: The images.
        metrics: The run's log; None on ranks that write nothing.
        emit: Receives every event, on every rank.
        stop: Set by signals; one on any rank stops all of them after the same step.

    Returns:
        Whether it got to its last step; False: its time was up, and the state was saved.

    Raises:
        DivergedError: a loss or gradient was not finite; nothing was saved since. On all ranks.
        InterruptedRun: ``stop`` was set; the state was saved first. On all ranks.
    """
    s = state.settings.training
    per_epoch, total_steps = state.schedule.per_epoch, state.schedule.end
    whole, stream = state.schedule.total, train_stream(state, data)
    batches = stream.batches(state.step)
    val_batches = _validation_batches(state, data)
    started = time.perf_counter()
    clock = started - state.totals.seconds
    time_up = math.inf if s.max_minutes is None else started + 60 * s.max_minutes

    def save(paused: float) -> None:
        _tell_updates(state, emit)
        state.totals.seconds = paused - clock
        _average(state)
        if metrics is not None:
            saved = state.save(run.checkpoints, metrics_bytes=metrics.durable_offset())
            emit(CheckpointSaved(state.step, str(saved.path)))

    def interrupt(signum: int) -> NoReturn:
        emit(RunEnded(state.step, "interrupted", time.perf_counter() - started))
        raise InterruptedRun(
            f"interrupted after step {state.step} of {total_steps}, which is saved; go on with "
            f"`hdkd train --resume {run.path}`",
            signum,
        )

    while state.step < total_steps:
        lr = learning_rate(state.step, whole, state.settings.optimizer, state.settings.schedule)

        # weights
        if state.replayed is not None:
            state.weights.raw_T.copy_(state.replayed.at((state.step + 1) / whole))
        if round_due(state, whole):
            paused = time.perf_counter()
            moved = hold_round(state, data, stream, lr, stop)
            if moved is None:
                save(paused)
                interrupt(state.ranks.largest(stop.signum or 0))
            emit(moved)
            clock += time.perf_counter() - paused

        # step
        set_rate(state.optimizer, lr)
        take_step(state, batches, val_batches, state.totals)

        ended = state.step == total_steps
        epoch = -(-state.step // per_epoch)  # the pass this step belongs to, from 1
        epoch_ended = state.step % per_epoch == 0
        if state.step % s.log_every == 0 or epoch_ended or ended:
            refuse_divergence(run, state)
            _tell_updates(state, emit)
            emit(_step_logged(state, epoch, time.perf_counter() - clock))
            state.totals, clock = new_totals(state), time.perf_counter()

        # evaluate
        paused = time.perf_counter()
        if ended or (epoch_ended and epoch % s.evaluate_every == 0):
            refuse_divergence(run, state)
            if len(data.splits["val"]):
                emit(_evaluated(state, data, epoch))

        # save
        signum = state.ranks.largest(stop.signum or (TIME_UP if paused > time_up else 0))
        if signum or ended or (epoch_ended and epoch % s.checkpoint_every == 0):
            refuse_divergence(run, state)
            save(paused)
        clock += time.perf_counter() - paused
        if signum == TIME_UP and not ended:
            emit(RunEnded(state.step, "paused", time.perf_counter() - started))
            return False
        if signum and not ended:
            interrupt(signum)
    emit(RunEnded(state.step, "finished", time.perf_counter() - started))
    return True


def refuse_divergence(run: RunFolder, state: TrainState) -> None:
    """Wait for the device and end the run if a step was not finite.

    Raises:
        DivergedError: naming the step and the last good checkpoint.
    """
    bad = int(state.first_bad_step)
    if bad < 0:
        return
    last = run.checkpoints / "last"
    kept = f"last good checkpoint: {last.resolve()}" if last.exists() else "no checkpoint yet"
    raise DivergedError(
        f"{run.path}: the loss or a gradient was not finite at step {bad + 1}; {kept}",
        hint="a lower optimizer.lr, or schedule.warmup, usually helps",
        subject=run.path,
    )


def train_stream(state: TrainState, data: ImageData) -> Stream:
    """What the steps read.

    Raises:
        SettingsError: there are fewer images than a batch, or no equal shares.
    """
    s = state.settings.training
    return data.train_stream(
        batch_size=s.batch_size,
        seed=s.seed,
        device=state.device,
        channels_last=state.channels_last,
        share=state.share,
    )


def val_stream(state: TrainState, data: ImageData) -> Stream:
    """What the weights' updates read.

    Raises:
        SettingsError: there are no equal shares.
    """
    s = state.settings
    return data.val_stream(
        batch_size=s.val_batch_size,
        seed=s.training.seed,
        device=state.device,
        channels_last=state.channels_last,
        share=state.share,
    )


def _validation_batches(state: TrainState, data: ImageData) -> Iterator[Batch]:
    """Batches for the weights' updates, from the one the next update reads."""
    if state.harmonizer is None:
        return iter(())
    return val_stream(state, data).batches(state.updates_before(state.step))


def _tell_updates(state: TrainState, emit: Sink) -> None:
    """Emit the weights' updates that have not been told yet."""
    told, num_exits = state.totals.updates, state.net.num_exits
    values = torch.stack([row for _, row in told]).tolist() if told else []
    for (step, _), (applied, val_loss, *rest) in zip(told, values, strict=True):
        ce_K, hypergradient_T = tuple(rest[:num_exits]), tuple(rest[num_exits:])
        emit(WeightsUpdated(step, bool(applied), val_loss, ce_K, hypergradient_T))
    told.clear()


def _average(state: TrainState) -> None:
    """Give every rank the averages of all ranks' totals."""
    for total in state.totals.tensors().values():
        state.ranks.mean(total)


def _step_logged(state: TrainState, epoch: int, seconds: float) -> StepLogged:
    totals, steps = state.totals, state.totals.steps
    _average(state)
    return StepLogged(
        step=state.step,
        epoch=epoch,
        lr=state.optimizer.param_groups[0]["lr"],
        loss=float(totals.loss) / steps,
        terms_T=tuple((totals.terms_T / steps).tolist()),
        weights_T=tuple(state.weights().tolist()),
        train_top1_pct_K=tuple((100 * totals.correct_K / steps).tolist()),
        images_per_s=steps * state.settings.training.batch_size / seconds,
        skipped_steps=int(state.loss_scale.skipped),
        weight_updates_left_out=_left_out(state),
    )


def _left_out(state: TrainState) -> int:
    """The weights' updates that were due so far and were not applied."""
    if state.harmonizer is None:
        return 0
    return state.updates_before(state.step) - int(state.harmonizer.updates)


def _evaluated(state: TrainState, data: ImageData, epoch: int) -> Evaluated:
    began = time.perf_counter()
    with state.average.in_use(state.net) if state.average is not None else nullcontext():
        top1_pct_K, nll_K = on_val(state, data)
    seconds = time.perf_counter() - began
    return Evaluated(state.step, epoch, "val", top1_pct_K, nll_K, seconds)
