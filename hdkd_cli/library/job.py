"""A run that is about to be trained: found in order, given a folder, and then trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from hdkd_cli.data import ImageData, open_data
from hdkd_cli.devices import keep_freed_memory, resolve_device
from hdkd_cli.errors import SettingsError, UsageError
from hdkd_cli.library.evaluated import Tell
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.settings.keys import leaves
from hdkd_cli.settings.layers import Resolved, resolve, resolve_over
from hdkd_cli.settings.methods import HOW_IT_RUNS
from hdkd_cli.settings.schema import Settings
from hdkd_cli.training.arithmetic import decide
from hdkd_cli.training.distributed import Launch, Ranks
from hdkd_cli.training.events import Sink
from hdkd_cli.training.session import check, run_training
from hdkd_cli.training.state import TrainState

# What a resumed run may change: where it ends and what it runs on, not what it is.
RESUMABLE = HOW_IT_RUNS | {"training.max_steps"}

Patience = Callable[[str], AbstractContextManager[object]]


class Job(NamedTuple):
    """What is left to do once everything has been found in order."""

    run: RunFolder
    settings: Settings
    data: ImageData
    device: torch.device
    resume: bool
    state: TrainState | None


def check_new(
    preset: str,
    config: Path | None,
    assignments: Sequence[str],
    flags: Mapping[str, object],
    ranks: Ranks,
    note: Tell,
    patience: Patience = nullcontext,
) -> tuple[Resolved, ImageData, TrainState]:
    """Settings, images and first state of a new run that could begin."""

    resolved = resolve(preset, config=config, assignments=assignments, flags=flags)
    for sentence in resolved.notes:
        note(sentence)
    settings = resolved.settings

    where = ranks.own_device(resolve_device(settings.training.device))
    with patience("reading the images"):
        data = open_data(settings.data)
    for sentence in data.in_words():
        note(sentence)
    with patience("reading the images"):
        state = check(settings, data, where, ranks)
    return resolved, data, state


def decided(
    resolved: Resolved,
    data: ImageData,
    state: TrainState,
    ranks: Ranks,
    note: Tell,
    patience: Patience = nullcontext,
) -> tuple[Resolved, TrainState]:
    """``resolved`` with its arithmetic decided, and the first state that goes with it.

    Args:
        resolved: Settings of a new run that could begin.
        data: Its images.
        state: Its first state in the plain arithmetic.
        ranks: The processes that train it together.
        note: Told what a trial found.
        patience: Shown while it runs.
    """
    with patience("trying which arithmetic is fastest here"):
        decision = decide(resolved.settings, data, state)
    for sentence in decision.notes:
        note(sentence)
    origin = resolved.origin | dict(decision.origin)
    if decision.notes:  # a trial was made, the plain arithmetic may not be what it found
        state = check(decision.settings, data, state.device, ranks)
    return replace(resolved, settings=decision.settings, origin=origin), state


def folder_of_new(
    runs_dir: Path, label: str, resolved: Resolved, name: str | None, ranks: Ranks
) -> tuple[RunFolder, bool]:
    """The run's folder, named by the first rank, and whether this job has been in it before."""

    launch = Launch.of_environment()
    settings = resolved.settings

    def named() -> tuple[RunFolder, bool]:
        if not ranks.first:
            return RunFolder(runs_dir), False
        earlier = RunFolder.of_launch(runs_dir, launch.id) if launch else None
        if launch and earlier and goes_on(launch, earlier, settings):
            return earlier, True
        job = launch.id if launch else None
        made = RunFolder.create(
            runs_dir, label, settings, name=name, launch=job, origin=resolved.origin
        )
        return made, False

    run, again = ranks.together(named)
    return RunFolder(Path(ranks.text(str(run.path)))), again


def goes_on(launch: Launch, earlier: RunFolder, settings: Settings) -> bool:
    """Whether this start of a job continues what an earlier one began."""
    if _unlike(earlier.settings(), settings):
        return False
    unfinished = earlier.info().status != "finished"
    return launch.restarts > 0 or (launch.lasting and unfinished)


def _unlike(before: Settings, after: Settings) -> list[str]:
    """The settings that would make it another run."""

    old, new = leaves(before), leaves(after)
    return sorted(k for k in old.keys() | new if old.get(k) != new.get(k) and k not in RESUMABLE)


def check_resumed(
    path: Path,
    others: bool,
    assignments: Sequence[str],
    flags: Mapping[str, object],
    ranks: Ranks,
) -> Job:

    if others:
        raise UsageError("--resume RUN takes its settings from the run: no preset, no --config,"
                         " --name or --dry-run with it")  # fmt: skip
    run = RunFolder.open(path)
    if run.info().imported is not None:
        raise UsageError(
            f"{path}: was imported, and no optimiser came with it to go on from",
            hint=f"start from its weights: hdkd train PRESET --init-from {path}",
            subject=path,
        )
    before = run.settings()
    resolved = resolve_over(before, assignments=assignments, flags=flags)
    changed = _unlike(before, resolved.settings)
    if changed:
        raise SettingsError(
            f"--resume cannot change {', '.join(changed)}: that would be another run",
            hint=f"it may change {', '.join(sorted(RESUMABLE))}",
            subject=changed[0],
        )
    settings = resolved.settings
    where = ranks.own_device(resolve_device(settings.training.device))
    data = open_data(settings.data, without=run.skipped())
    return Job(run, settings, data, where, True, None)


def follow(
    job: Job, ranks: Ranks, sinks: Sequence[Sink], note: Tell, *, restart: bool = False
) -> None:
    """Train what was found in order.

    Args:
        job: The run.
        ranks: The processes that train it together.
        sinks: What follows it.
        note: Told if the run is not finished.
        restart: Go back to the checkpoint that a resume names, and discard what came after.
    """
    if job.device.type == "cpu":
        keep_freed_memory()
    done = run_training(
        job.run,
        job.settings,
        job.data,
        job.device,
        sinks=sinks,
        resume=job.resume,
        restart=restart,
        ranks=ranks,
        state=job.state,
    )
    if not done:
        note(
            f"not finished: training.max_minutes = {job.settings.training.max_minutes:g} are over; "
            f"go on with `hdkd train --resume {job.run.path}`"
        )
