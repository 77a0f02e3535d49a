"""``hdkd train``: train a preset, resume a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from hdkd_cli.commands import options
from hdkd_cli.errors import SettingsError, UsageError
from hdkd_cli.ui.console import talk

if TYPE_CHECKING:
    import torch

    from hdkd_cli.data import ImageData
    from hdkd_cli.runs.folder import RunFolder
    from hdkd_cli.settings.layers import Resolved
    from hdkd_cli.settings.schema import Settings
    from hdkd_cli.training.distributed import Launch, Ranks
    from hdkd_cli.training.events import Sink
    from hdkd_cli.training.state import TrainState

# What a resumed run may change: where it ends and what it runs on, not what it is.
RESUMABLE = frozenset(
    {
        *("training.max_steps", "training.max_minutes"),
        *("training.device", "data.root", "data.workers"),
        *("data.cache", "data.check"),
        *("training.log_every", "training.checkpoint_every"),
        *("training.keep_checkpoints", "training.keep_every"),
    }
)


def train(
    preset: options.PresetArgument = None,
    config: options.ConfigOption = None,
    assignments: options.SetOption = None,
    seed: options.SeedOption = None,
    device: options.DeviceOption = None,
    data_dir: options.DataDirOption = None,
    download: options.DownloadOption = None,
    runs_dir: Annotated[
        Path, typer.Option("--runs-dir", metavar="FOLDER", help="Where runs are kept.")
    ] = Path("runs"),
    name: Annotated[
        str | None,
        typer.Option("--name", help="Folder name, instead of <preset>-s<seed>-<time>."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="RUN", help="Go on with an unfinished run."),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart",
            help="With --resume: go back to the checkpoint it names, or to the start, and discard "
            "what came after.",
        ),
    ] = False,
    init_from: Annotated[
        Path | None,
        typer.Option("--init-from", metavar="RUN", help="Start from another run's network."),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write RUN/tensorboard.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything, print the settings, train nothing."),
    ] = False,
) -> None:
    """Train a network; print its run folder.

    Without PRESET: digits, real images that come with hdkd. Under torchrun, the processes train one
    network together, and the batch is shared out among them.
    """
    from hdkd_cli.settings import presets
    from hdkd_cli.training.distributed import joined

    flags = {
        "--seed": seed,
        "--device": device,
        "--data-dir": data_dir and data_dir.absolute(),
        "--download": download,
        "--init-from": init_from and init_from.absolute(),
    }
    with joined() as ranks:
        if not ranks.first:
            talk.quiet = True
        if resume is not None:
            others = bool(preset or config or name or dry_run)
            job = ranks.in_turn(lambda: _resumed(resume, others, assignments or (), flags, ranks))
            _follow(job, ranks, tensorboard, restart=restart)
            return
        if restart:
            raise UsageError("--restart goes with --resume RUN")

        chosen = preset or presets.DEFAULT
        resolved, data, state = ranks.in_turn(
            lambda: _checked(chosen, config, assignments or (), flags, ranks)
        )
        if dry_run:
            from hdkd_cli.settings.toml import to_toml

            talk.note("everything is in order; nothing was trained")
            if ranks.first:
                sys.stdout.write(to_toml(resolved.settings, resolved.origin))
            return
        run, again = _folder(runs_dir, Path(chosen).stem, resolved, name, ranks)
        _follow(_Job(run, resolved.settings, data, state.device, again, state), ranks, tensorboard)


class _Job(NamedTuple):
    """What is left to do once everything has been found in order."""

    run: RunFolder
    settings: Settings
    data: ImageData
    device: torch.device
    resume: bool
    state: TrainState | None


def _checked(
    preset: str,
    config: Path | None,
    assignments: Sequence[str],
    flags: Mapping[str, object],
    ranks: Ranks,
) -> tuple[Resolved, ImageData, TrainState]:
    """Settings, images and first state of a new run that could begin."""
    from hdkd_cli.settings.layers import resolve

    resolved = resolve(preset, config=config, assignments=assignments, flags=flags)
    for note in resolved.notes:
        talk.note(note)
    settings = resolved.settings

    from hdkd_cli.data import open_data
    from hdkd_cli.devices import resolve_device
    from hdkd_cli.training.session import check

    where = ranks.own_device(resolve_device(settings.training.device))
    with talk.patience("reading the images"):
        data = open_data(settings.data)
    for sentence in data.in_words():
        talk.note(sentence)
    with talk.patience("reading the images"):
        state = check(settings, data, where, ranks)
    return resolved, data, state


def _folder(
    runs_dir: Path, label: str, resolved: Resolved, name: str | None, ranks: Ranks
) -> tuple[RunFolder, bool]:
    """The run's folder, named by the first rank, and whether this job has been in it before."""
    from hdkd_cli.runs.folder import RunFolder
    from hdkd_cli.training.distributed import Launch

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
    unfinished = earlier.info()["status"] != "finished"
    return launch.restarts > 0 or (launch.lasting and unfinished)


def _unlike(before: Settings, after: Settings) -> list[str]:
    """The settings that would make it another run."""
    from hdkd_cli.settings.keys import leaves

    old, new = leaves(before), leaves(after)
    return sorted(k for k in old.keys() | new if old.get(k) != new.get(k) and k not in RESUMABLE)


def _resumed(
    path: Path,
    others: bool,
    assignments: Sequence[str],
    flags: Mapping[str, object],
    ranks: Ranks,
) -> _Job:
    from hdkd_cli.data import open_data
    from hdkd_cli.devices import resolve_device
    from hdkd_cli.runs.folder import RunFolder
    from hdkd_cli.settings.layers import resolve_over

    if others:
        raise UsageError("--resume RUN takes its settings from the run: no preset, no --config,"
                         " --name or --dry-run with it")  # fmt: skip
    run = RunFolder.open(path)
    if "imported" in run.info():
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
    data = open_data(settings.data, without=run.info().get("skipped", ()))
    return _Job(run, settings, data, where, True, None)


def _follow(job: _Job, ranks: Ranks, tensorboard: bool, *, restart: bool = False) -> None:
    """Train; show how it goes, and print the run folder."""
    from hdkd_cli.devices import keep_freed_memory
    from hdkd_cli.training.session import run_training

    if job.device.type == "cpu":
        keep_freed_memory()
    with ExitStack() as stack:
        done = run_training(
            job.run,
            job.settings,
            job.data,
            job.device,
            sinks=_sinks(job.run, stack, tensorboard) if ranks.first else (),
            resume=job.resume,
            restart=restart,
            ranks=ranks,
            state=job.state,
        )
    if not done:
        talk.note(
            f"not finished: training.max_minutes = {job.settings.training.max_minutes:g} are over; "
            f"go on with `hdkd train --resume {job.run.path}`"
        )
    if ranks.first:
        sys.stdout.write(f"{job.run.path}\n")


def _sinks(run: RunFolder, stack: ExitStack, tensorboard: bool) -> list[Sink]:
    """What follows the run; ``stack`` ends it."""
    from hdkd_cli.runs.metrics import open_plain
    from hdkd_cli.ui.progress import LiveProgress, PlainProgress

    log = stack.enter_context(TextIOWrapper(open_plain(run.path / "train.log"), encoding="utf-8"))
    sinks: list[Sink] = [PlainProgress(lambda line: print(line, file=log, flush=True))]
    console = talk.console()
    if not talk.quiet and console.is_terminal:
        sinks.append(stack.enter_context(LiveProgress(console)))
    elif not talk.quiet:
        sinks.append(PlainProgress(lambda line: console.print(line, highlight=False)))
    if tensorboard:
        from hdkd_cli.ui.tensorboard import TensorBoardSink

        sinks.append(stack.enter_context(TensorBoardSink(run.path / "tensorboard")))
    return sinks
