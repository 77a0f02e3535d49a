"""A training session from start to end: fresh, resumed, or initialised from another run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from hdkd_cli.data import ImageData
from hdkd_cli.devices import describe_device
from hdkd_cli.errors import (
    ArtifactError,
    CheckpointError,
    DivergedError,
    HdkdError,
    InterruptedRun,
)
from hdkd_cli.evaluation.of_run import refuse_other_images
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.models.cost import measure_costs
from hdkd_cli.runs.checkpoints import discard_leftovers
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.runs.metrics import MetricsLog
from hdkd_cli.settings.schema import Settings
from hdkd_cli.training.events import Event, RunStarted, Sink
from hdkd_cli.training.loop import train
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
) -> None:
    """Train ``run`` to its end and keep run.json's status true.

    Args:
        run: The folder; nobody else may be training it.
        settings: The run's settings (on resume with the changes a resume allows).
        data: The images.
        device: Where to train.
        sinks: Receive every event, besides metrics.jsonl.
        resume: Go on from the run's checkpoint; start again if it has none.

    Raises:
        DivergedError: a loss or gradient was not finite.
        InterruptedRun: a signal came; everything is saved.
        CheckpointError: the checkpoint to start from is missing or unusable.
        DataError: on resume, the images are not the same as before.
        RunError: another process is training this run.
    """
    with run.locked():
        status, exit_code = "failed", 1
        run.update_info(status="running", exit_code=None, device=describe_device(device))
        try:
            _train_locked(run, settings, data, device, sinks, resume)
            status, exit_code = "finished", 0
        except InterruptedRun as stopped:
            status, exit_code = "interrupted", stopped.exit_code
            raise
        except KeyboardInterrupt:
            status, exit_code = "interrupted", 130
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
            run.update_info(status=status, exit_code=exit_code, ended=now)


def check(settings: Settings, data: ImageData, device: torch.device) -> None:
    """Find out before a run folder is made whether the run could begin.

    Raises:
        SettingsError: the network cannot be built, the device lacks the precision, or a split is
            smaller than a batch.
        DataError: images that are held in memory cannot be read.
        RunError, CheckpointError: ``training.init_from`` is no usable run.
    """
    state = TrainState.build(settings, data, device)
    if settings.training.init_from is not None:
        initialise_from(state.net, RunFolder.open(Path(settings.training.init_from)))
    data.train_stream(
        batch_size=settings.training.batch_size, seed=settings.training.seed, device=device
    )
    data.images.make_ready(device)


def _train_locked(
    run: RunFolder,
    settings: Settings,
    data: ImageData,
    device: torch.device,
    sinks: Sequence[Sink],
    resume: bool,
) -> None:
    data.images.make_ready(device)  # may take a minute, in which Ctrl-C shall end it at once
    state = TrainState.build(settings, data, device)
    if resume:
        refuse_other_images(run, data)
    splits = {role: split.sha256 for role, split in data.splits.items()}
    run.update_info(classes=data.classes, splits=splits)
    notes: list[str] = []
    metrics_bytes = 0
    if resume and (run.pinned or run.has_checkpoint()):
        metrics_bytes = state.load(run.checkpoint())
    elif settings.training.init_from is not None:
        notes.append(initialise_from(state.net, RunFolder.open(Path(settings.training.init_from))))
    discard_leftovers(run.checkpoints, newer_than=state.step)
    metrics = MetricsLog(run.metrics, keep_bytes=metrics_bytes)

    def emit(event: Event) -> None:
        metrics.append(event.record())
        for sink in sinks:
            sink(event)

    try:
        emit(_run_started(run, state, data, notes))
        with deferred_signals() as stop:
            train(run, state, data, metrics, emit, stop)
    finally:
        metrics.close()


def initialise_from(net: MultiExitNet, source: RunFolder) -> str:
    """Copy parameters and buffers of equal name and shape from ``source``; returns a note.

    Raises:
        CheckpointError: nothing fits, or the checkpoint is unusable.
    """
    tensors, _ = source.checkpoint().tensors("model")
    ours = net.state_dict()
    fitting = {k: v for k, v in tensors.items() if k in ours and v.shape == ours[k].shape}
    if not fitting:
        raise CheckpointError(f"{source.path}: no parameter of it fits this network")
    net.load_state_dict(fitting, strict=False)
    fresh = sorted(ours.keys() - fitting.keys())
    note = f"initialised {len(fitting)} of {len(ours)} tensors from {source.path}"
    return (
        note
        + (f"; left as they were: {', '.join(fresh[:6])}" if fresh else "")
        + (f" and {len(fresh) - 6} more" if len(fresh) > 6 else "")
    )


def _run_started(
    run: RunFolder, state: TrainState, data: ImageData, notes: list[str]
) -> RunStarted:
    s = state.settings.training
    per_epoch = len(data.splits["train"].labels_N) // s.batch_size
    total = s.epochs * per_epoch
    return RunStarted(
        run=str(run.path),
        first_step=state.step,
        total_steps=min(total, s.max_steps or total),
        steps_per_epoch=per_epoch,
        epochs=s.epochs,
        samples={role: len(split.labels_N) for role, split in data.splits.items()},
        num_exits=state.net.num_exits,
        parameters=sum(p.numel() for p in state.net.parameters()),
        macs_K=measure_costs(state.net).macs_K,
        terms=state.terms.names,
        device=describe_device(state.device),
        notes=tuple(notes),
    )
