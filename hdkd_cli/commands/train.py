"""``hdkd train``: train a preset, resume a run."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hdkd_cli.commands import completion, options
from hdkd_cli.errors import UsageError
from hdkd_cli.ui.console import talk

if TYPE_CHECKING:
    from hdkd_cli.library.job import Job
    from hdkd_cli.runs.folder import RunFolder
    from hdkd_cli.training.distributed import Ranks
    from hdkd_cli.training.events import Sink


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
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Go on with an unfinished run.",
            autocompletion=completion.runs,
        ),
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
    from hdkd_cli.library.job import Job, check_new, check_resumed, decided, folder_of_new
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
            job = ranks.in_turn(
                lambda: check_resumed(resume, others, assignments or (), flags, ranks)
            )
            _show(job, ranks, tensorboard, restart=restart)
            return
        if restart:
            raise UsageError("--restart goes with --resume RUN")

        chosen = preset or presets.DEFAULT
        resolved, data, state = ranks.in_turn(
            lambda: check_new(
                chosen, config, assignments or (), flags, ranks, talk.note, talk.patience
            )
        )
        if dry_run:
            from hdkd_cli.settings.toml import to_toml

            talk.note("everything is in order; nothing was trained")
            if ranks.first:
                sys.stdout.write(to_toml(resolved.settings, resolved.origin))
            return
        resolved, state = decided(resolved, data, state, ranks, talk.note, talk.patience)
        run, again = folder_of_new(runs_dir, Path(chosen).stem, resolved, name, ranks)
        _show(Job(run, resolved.settings, data, state.device, again, state), ranks, tensorboard)


def _show(job: Job, ranks: Ranks, tensorboard: bool, *, restart: bool = False) -> None:
    """Train; show how it goes, and print the run folder."""
    from hdkd_cli.library.job import follow

    with ExitStack() as stack:
        sinks = _sinks(job.run, stack, tensorboard) if ranks.first else ()
        follow(job, ranks, sinks, talk.note, restart=restart)
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
