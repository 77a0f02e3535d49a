"""Training from Python: what ``hdkd train`` does, with sinks of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hdkd_cli.data import ImageData, open_data
from hdkd_cli.devices import keep_freed_memory, resolve_device
from hdkd_cli.errors import SettingsError, UsageError
from hdkd_cli.library.evaluated import Tell, quiet
from hdkd_cli.library.run import Run
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.settings import presets
from hdkd_cli.settings.keys import leaves
from hdkd_cli.settings.layers import Resolved, resolve, resolve_over
from hdkd_cli.settings.methods import HOW_IT_RUNS
from hdkd_cli.settings.schema import Settings
from hdkd_cli.settings.values import show
from hdkd_cli.training.arithmetic import decide
from hdkd_cli.training.distributed import Launch, Ranks, joined
from hdkd_cli.training.events import Sink
from hdkd_cli.training.session import check, run_training
from hdkd_cli.training.state import TrainState

# What a resumed run may change: where it ends and what it runs on, not what it is.
RESUMABLE = HOW_IT_RUNS | {"training.max_steps"}

Patience = Callable[[str], AbstractContextManager[object]]


def train(
    preset: str = presets.DEFAULT,
    *,
    set: Mapping[str, Any] | None = None,
    config: str | PathLike[str] | None = None,
    sinks: Sequence[Sink] = (),
    runs_dir: str | PathLike[str] = "runs",
    name: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    data_dir: str | PathLike[str] | None = None,
    download: bool | None = None,
    init_from: str | PathLike[str] | None = None,
    note: Tell = quiet,
) -> Run:
    """Train a network.

    Args:
        preset: Its name, or a TOML file.
        set: Settings over the preset's, such as ``{"training.epochs": 3, "method": "joint"}``.
        config: TOML file of settings, over the preset.
        sinks: Each is called with every event of the run, a record of ``training.events``.
        runs_dir: Where runs are kept.
        name: Folder name, instead of ``<preset>-s<seed>-<time>``.
        seed: Seed of the run.
        device: auto, cpu, cuda, cuda:N or mps.
        data_dir: Where the images are.
        download: Fetch the images if they are not there (CIFAR).
        init_from: Start from another run's network.
        note: Told in sentences what is worth knowing.

    Returns:
        The run, opened for use.

    Raises:
        SettingsError: settings are wrong; all of them are told together.
        PresetError: there is no such preset.
        DataError: images are missing or too few.
        DivergedError: a loss or gradient was not finite.
        InterruptedRun: a signal came; everything is saved.
    """
    flags = {
        "--seed": seed,
        "--device": device,
        "--data-dir": data_dir and Path(data_dir).absolute(),
        "--download": download,
        "--init-from": init_from and Path(init_from).absolute(),
    }
    overrides = assignments_of(set or {})
    with joined() as ranks:
        resolved, data, state = ranks.in_turn(
            lambda: check_new(
                preset, None if config is None else Path(config), overrides, flags, ranks, note
            )
        )
        resolved, state = decided(resolved, data, state, ranks, note)
        folder, again = folder_of_new(Path(runs_dir), Path(preset).stem, resolved, name, ranks)
        job = Job(folder, resolved.settings, data, state.device, again, state)
        follow(job, ranks, sinks if ranks.first else (), note)
    return Run(folder=folder, device=device, note=note)


def resume(
    run: str | PathLike[str],
    *,
    set: Mapping[str, Any] | None = None,
    sinks: Sequence[Sink] = (),
    device: str | None = None,
    data_dir: str | PathLike[str] | None = None,
    restart: bool = False,
    note: Tell = quiet,
) -> Run:
    """Go on with an unfinished run, or a finished one that is given more steps.

    Args:
        run: Run folder, or one checkpoint in it.
        set: Settings that a resume may change, such as ``{"training.max_steps": 500}``.
        sinks: See `train`.
        device: auto, cpu, cuda, cuda:N or mps.
        data_dir: Where the images are now.
        restart: Go back to the checkpoint that ``run`` names, and discard what came after.
        note: Told in sentences what is worth knowing.

    Returns:
        The run, opened for use.

    Raises:
        RunError: there is no run, or another process is training it.
        CheckpointError: its checkpoint is missing or unusable.
        DataError: the images are not the same as before.
        SettingsError: what is set would make it another run.
    """
    flags = {"--device": device, "--data-dir": data_dir and Path(data_dir).absolute()}
    overrides = assignments_of(set or {})
    with joined() as ranks:
        job = ranks.in_turn(lambda: check_resumed(Path(run), False, overrides, flags, ranks))
        follow(job, ranks, sinks if ranks.first else (), note, restart=restart)
    where = None if data_dir is None else Path(data_dir)
    return Run(folder=RunFolder(job.run.path), data_dir=where, device=device, note=note)


def assignments_of(settings: Mapping[str, Any]) -> list[str]:
    """Settings as ``--set`` takes them."""
    return [f"{k}={v if isinstance(v, str) else show(v)}" for k, v in settings.items()]


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
        if launch and earlier and _goes_on(launch, earlier, settings):
            return earlier, True
        job = launch.id if launch else None
        made = RunFolder.create(
            runs_dir, label, settings, name=name, launch=job, origin=resolved.origin
        )
        return made, False

    run, again = ranks.together(named)
    return RunFolder(Path(ranks.text(str(run.path)))), again


def _goes_on(launch: Launch, earlier: RunFolder, settings: Settings) -> bool:
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
