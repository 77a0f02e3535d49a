"""Where a run begins: fresh, from pretrained weights or another run, or from a checkpoint."""

from __future__ import annotations

from pathlib import Path

from hdkd_cli.data import ImageData
from hdkd_cli.errors import (
    CheckpointError,
    UsageError,
)
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.runs.checkpoints import (
    Checkpoint,
    discard_leftovers,
    newest_checkpoint,
    steps_of,
)
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.runs.images import refuse_other_images
from hdkd_cli.runs.metrics import MetricsLog
from hdkd_cli.settings.networks import BackboneSettings
from hdkd_cli.settings.schema import Settings
from hdkd_cli.training.state import TrainState


def begin_in_folder(
    run: RunFolder, state: TrainState, data: ImageData, checkpoint: Checkpoint | None
) -> tuple[MetricsLog, list[str]]:
    """Bring ``state`` and the folder to where training begins; returns its log, and notes."""
    splits = {role: split.sha256 for role, split in data.splits.items()}
    run.update_info(classes=data.classes, splits=splits, skipped=dict(data.skipped))
    notes: list[str] = []
    metrics_bytes = 0
    init_from = state.settings.training.init_from
    if checkpoint is not None:
        metrics_bytes = state.load(checkpoint)
    else:
        notes += take_pretrained(state.net, state.settings)
        if init_from is not None:
            notes.append(initialise_from(state.net, RunFolder.open(Path(init_from))))
        if state.average is not None:
            state.average.begin(state.net)
    discard_leftovers(run.checkpoints, newer_than=state.step)
    return MetricsLog(run.metrics, keep_bytes=metrics_bytes), notes


def checkpoint_to_resume(run: RunFolder, data: ImageData, *, restart: bool) -> Checkpoint | None:
    """Where training goes on; None: at its start. Nothing is changed yet.

    Raises:
        DataError: the images are not the same as before.
        CheckpointError: what the run has saved is gone or damaged.
        UsageError: checkpoints newer than the pinned one would be lost.
    """
    refuse_other_images(run, data)
    if run.pinned is not None:
        newest = max(steps_of(run.checkpoints), default=0)
        if newest > run.pinned.step and not restart:
            raise UsageError(
                f"{run.pinned.path}: is not the newest checkpoint; going on from it discards "
                f"step-{newest} and what came after step {run.pinned.step}",
                hint="say so with --restart",
                subject=run.pinned.path,
            )
        return run.pinned
    if restart:
        return None
    try:
        newest_one = newest_checkpoint(run.checkpoints)
    except CheckpointError as problem:
        hint = f"{problem.hint}; name it" if problem.hint else "put it back, or name another"
        hint += " as RUN, or train again from the start, with --restart"
        raise CheckpointError(problem.message, hint=hint, subject=run.checkpoints) from None
    if newest_one is None and run.has_saved():
        raise CheckpointError(
            f"{run.checkpoints}: has no checkpoint, but the run has saved some",
            hint="put them back, or train again from the start with --restart",
            subject=run.checkpoints,
        )
    return newest_one


def take_pretrained(net: MultiExitNet, settings: Settings) -> list[str]:
    """Load the pretrained weights that the settings ask for, if any; returns notes.

    Raises:
        CheckpointError: they are unusable, or cannot be fetched.
    """
    model = settings.model
    if not isinstance(model, BackboneSettings) or model.pretrained is None:
        return []
    from hdkd_cli.models.backbone import Backbone, load_pretrained

    assert isinstance(net, Backbone)
    return [load_pretrained(net, model)]


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
