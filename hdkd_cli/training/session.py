"""A training session from start to end: fresh, resumed, or initialised from another run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from hdkd_cli.data import ImageData
from hdkd_cli.data.workers import killed_workers_told
from hdkd_cli.devices import describe_device
from hdkd_cli.errors import (
    ArtifactError,
    DataError,
    DivergedError,
    HdkdError,
    InterruptedRun,
    OtherRankFailed,
    RunError,
    SettingsError,
)
from hdkd_cli.models.cost import measure_costs
from hdkd_cli.runs.checkpoints import (
    Checkpoint,
)
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.settings.schema import Settings
from hdkd_cli.training.beginning import (
    begin_in_folder,
    checkpoint_to_resume,
    initialise_from,
    take_pretrained,
)
from hdkd_cli.training.building import build_state
from hdkd_cli.training.compile import compile_step
from hdkd_cli.training.distributed import ALONE, Ranks
from hdkd_cli.training.events import Event, Noted, RunStarted, Sink
from hdkd_cli.training.loop import train_stream, train_to_end, val_stream
from hdkd_cli.training.signals import deferred_signals
from hdkd_cli.training.state import TrainState


def run_training(
    run: RunFolder,
    settings: Settings,
    data: ImageData,
    device: torch.device,
    *,
    sinks: Sequence[Sink],
    resume: bool = False,
    restart: bool = False,
    ranks: Ranks = ALONE,
    state: TrainState | None = None,
) -> bool:
    """Train ``run`` to its end and keep run.json's status true.

    Of several ranks only the first one touches the folder: it reads what a resume needs and gives
    it to the others, so they need not see the folder at all.

    Args:
        run: The folder; no other process may be training it.
        settings: The run's settings (on resume with the changes a resume allows).
        data: The images.
        device: Where to train.
        sinks: Receive every event of this rank, besides metrics.jsonl.
        resume: Go on from the run's checkpoint; start again if it never had one.
        restart: On resume, go back: to the pinned checkpoint or to the start, for good.
        ranks: The processes that train it together.
        state: What ``check`` built for these arguments; absent: it is built.

    Returns:
        Whether the run got to its last step; False: ``training.max_minutes`` were over.

    Raises:
        DivergedError: a loss or gradient was not finite.
        InterruptedRun: a signal came; everything is saved.
        CheckpointError: the checkpoint to start from is missing or unusable.
        UsageError: ``restart`` is needed.
        DataError: on resume, the images are not the same as before.
        RunError: another process is training this run.
        OtherRankFailed: what ended the run concerns all ranks and is left to the first to tell.
    """
    if ranks.first:
        with run.locked():
            checkpoint = ranks.together(
                lambda: checkpoint_to_resume(run, data, restart=restart) if resume else None
            )
            with _status_kept(run) as ending:
                run.update_info(device=describe_device(device), ranks=ranks.size)
                done = _train_in_folder(
                    run, settings, data, device, sinks, checkpoint, ranks, state
                )
                ending.status = "finished" if done else "paused"
        return done
    ranks.together(lambda: None)  # the first one finds out whether the run may go on
    try:
        return _train_in_folder(run, settings, data, device, sinks, None, ranks, state)
    except (DivergedError, InterruptedRun) as problem:
        raise OtherRankFailed(problem.exit_code) from None


@dataclass
class _Ending:
    """How a block ended that raised nothing."""

    status: str = "finished"


@contextmanager
def _status_kept(run: RunFolder) -> Iterator[_Ending]:
    """run.json says how the block is doing, and how it ended."""
    status, exit_code = "failed", 1
    run.update_info(status="running", exit_code=None)
    try:
        ending = _Ending()
        yield ending
        status, exit_code = ending.status, 0
    except InterruptedRun as stopped:
        status, exit_code = "interrupted", stopped.exit_code
        raise
    except KeyboardInterrupt:
        status, exit_code = "interrupted", 130
        raise
    except SystemExit as end:  # a signal, before training deferred them
        status, exit_code = "interrupted", int(end.code or 0)
        raise
    except DivergedError as problem:
        status, exit_code = "diverged", problem.exit_code
        raise
    except HdkdError as problem:
        exit_code = problem.exit_code
        raise
    except OSError:  # a full disk, a folder that became read-only
        exit_code = ArtifactError.exit_code
        raise
    finally:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with suppress(RunError):  # the run was moved away or removed, which was told
            run.update_info(status=status, exit_code=exit_code, ended=now)


def check(
    settings: Settings, data: ImageData, device: torch.device, ranks: Ranks = ALONE
) -> TrainState:
    """What the run begins with; finds out before a run folder is made whether it could begin.

    Raises:
        SettingsError: the network cannot be built, the device lacks the precision, a split is
            smaller than a batch, or the ranks cannot share one equally.
        DataError: images that are held in memory cannot be read.
        RunError, CheckpointError: ``training.init_from`` or ``model.pretrained`` is unusable.
    """
    state = build_state(settings, data, device, ranks)
    if ranks.first:
        take_pretrained(state.net, settings)
    if settings.training.init_from is not None and ranks.first:
        initialise_from(state.net, RunFolder.open(Path(settings.training.init_from)))
    train_stream(state, data)
    if state.harmonizer is not None:
        val_stream(state, data)
        _refuse_no_updates(state)
    data.images.make_ready(device)
    return state


def _refuse_no_updates(state: TrainState) -> None:
    """Weights that are to be learned are, in a run of this length.

    Raises:
        SettingsError: the schedule ends before their first update.
    """
    interval, steps = state.settings.weights.interval, state.schedule.total
    if steps < interval:
        raise SettingsError(
            f"weights.learned: this run has {steps} steps and ends before the first update of the "
            f"weights (weights.interval = {interval})",
            hint="train longer (training.epochs), set weights.interval lower, or keep the weights "
            "fixed with --set weights.learned=false",
            subject="weights.interval",
        )


def _train_in_folder(
    run: RunFolder,
    settings: Settings,
    data: ImageData,
    device: torch.device,
    sinks: Sequence[Sink],
    checkpoint: Checkpoint | None,
    ranks: Ranks,
    state: TrainState | None,
) -> bool:
    """Train in a folder that is locked; returns whether the run got to its last step."""
    data.images.make_ready(device)  # may take a minute, in which Ctrl-C shall end it at once
    if state is None:
        state = build_state(settings, data, device, ranks)
    with ExitStack() as stack:
        metrics, notes = ranks.together(
            lambda: begin_in_folder(run, state, data, checkpoint) if ranks.first else (None, [])
        )
        if metrics is not None:
            stack.callback(metrics.close)
        _refuse_unlike_images(data, ranks)
        state.take_from_first_rank()

        def emit(event: Event) -> None:
            if metrics is not None:
                metrics.append(event.record())
            for sink in sinks:
                sink(event)

        if state.harmonizer is not None and state.weight_updates == 0:
            notes.append(
                f"the run ends at step {state.schedule.end}, before the first update of the weights"
            )
        emit(_run_started(run, state, data, [*state.notes, *notes]))
        if settings.training.compile:
            emit(Noted("compiling the network, which takes minutes the first time"))
            seconds = compile_step(state)
            emit(Noted(f"compiled after {seconds:.0f} s"))
        stop = stack.enter_context(deferred_signals())
        stack.enter_context(killed_workers_told())
        return train_to_end(run, state, data, metrics, emit, stop)


def _refuse_unlike_images(data: ImageData, ranks: Ranks) -> None:
    """Compare this rank's images with those of the first one.

    Raises:
        DataError: an image or label differs.
    """
    ours = " ".join(split.sha256 for split in data.splits.values())
    if ranks.text(ours) != ours:
        raise DataError(f"rank {ranks.rank} does not have the images of the first rank")


def _run_started(
    run: RunFolder, state: TrainState, data: ImageData, notes: list[str]
) -> RunStarted:
    s = state.settings.training
    return RunStarted(
        run=str(run.path),
        first_step=state.step,
        total_steps=state.schedule.end,
        steps_per_epoch=state.schedule.per_epoch,
        epochs=s.epochs,
        samples={role: len(split.labels_N) for role, split in data.splits.items()},
        num_exits=state.net.num_exits,
        parameters=sum(p.numel() for p in state.net.parameters()),
        macs_K=measure_costs(state.net).macs_K,
        terms=state.terms.terms,
        device=describe_device(state.device),
        weight_updates=state.weight_updates,
        notes=tuple(notes),
    )
