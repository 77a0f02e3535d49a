"""Training from Python: what ``hdkd train`` does, with sinks of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from hdkd_cli.library.evaluated import Tell, quiet
from hdkd_cli.library.job import Job, check_new, check_resumed, decided, folder_of_new, follow
from hdkd_cli.library.run import Run
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.settings import presets
from hdkd_cli.settings.values import show
from hdkd_cli.training.distributed import joined
from hdkd_cli.training.events import Sink


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
