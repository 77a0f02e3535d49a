"""``hdkd train``: train a preset, resume a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hdkd_cli.commands import options
from hdkd_cli.errors import SettingsError, UsageError
from hdkd_cli.ui.console import talk

if TYPE_CHECKING:
    import torch

    from hdkd_cli.data import ImageData
    from hdkd_cli.runs.folder import RunFolder
    from hdkd_cli.settings.schema import Settings
    from hdkd_cli.training.events import Sink

# What a resumed run may change: where it ends and what it runs on, not what it is.
RESUMABLE = frozenset({"training.max_steps", "training.device", "data.root"})


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

    Without PRESET: digits, real images that come with hdkd.
    """
    from hdkd_cli.settings import presets
    from hdkd_cli.settings.layers import resolve

    flags = {
        "--seed": seed,
        "--device": device,
        "--data-dir": data_dir and data_dir.absolute(),
        "--download": download,
        "--init-from": init_from and init_from.absolute(),
    }
    if resume is not None:
        if preset or config or name or dry_run:
            raise UsageError("--resume RUN takes its settings from the run: no preset, no --config,"
                             " --name or --dry-run with it")  # fmt: skip
        _resume(resume, assignments or (), flags, tensorboard)
        return

    resolved = resolve(
        preset or presets.DEFAULT, config=config, assignments=assignments or (), flags=flags
    )
    for note in resolved.notes:
        talk.note(note)
    settings = resolved.settings

    from hdkd_cli.data import open_data
    from hdkd_cli.devices import resolve_device
    from hdkd_cli.runs.folder import RunFolder
    from hdkd_cli.training.session import check

    where = resolve_device(settings.training.device)
    data = open_data(settings.data)
    check(settings, data, where)
    if dry_run:
        from hdkd_cli.settings.toml import to_toml

        talk.note("everything is in order; nothing was trained")
        sys.stdout.write(to_toml(settings, resolved.origin))
        return
    label = Path(preset).stem if preset else presets.DEFAULT
    run = RunFolder.create(runs_dir, label, settings, name=name)
    _run(run, settings, data, where, tensorboard=tensorboard, resume=False)


def _resume(
    path: Path, assignments: Sequence[str], flags: Mapping[str, object], tensorboard: bool
) -> None:
    from hdkd_cli.data import open_data
    from hdkd_cli.devices import resolve_device
    from hdkd_cli.runs.folder import RunFolder
    from hdkd_cli.settings.keys import leaves
    from hdkd_cli.settings.layers import resolve_over

    run = RunFolder.open(path)
    before = run.settings()
    resolved = resolve_over(before, assignments=assignments, flags=flags)
    old, new = leaves(before), leaves(resolved.settings)
    changed = sorted(k for k in old.keys() | new if old.get(k) != new.get(k) and k not in RESUMABLE)
    if changed:
        raise SettingsError(
            f"--resume cannot change {', '.join(changed)}: that would be another run; "
            f"it may change {', '.join(sorted(RESUMABLE))}"
        )
    settings = resolved.settings
    where = resolve_device(settings.training.device)
    data = open_data(settings.data)
    _run(run, settings, data, where, tensorboard=tensorboard, resume=True)


def _run(
    run: RunFolder,
    settings: Settings,
    data: ImageData,
    device: torch.device,
    *,
    tensorboard: bool,
    resume: bool,
) -> None:
    from hdkd_cli.devices import keep_freed_memory
    from hdkd_cli.training.session import run_training
    from hdkd_cli.ui.progress import LiveProgress, PlainProgress

    if device.type == "cpu":
        keep_freed_memory()
    with ExitStack() as stack:
        log = stack.enter_context((run.path / "train.log").open("a", encoding="utf-8"))
        sinks: list[Sink] = [PlainProgress(lambda line: print(line, file=log, flush=True))]
        console = talk.console()
        if not talk.quiet and console.is_terminal:
            sinks.append(stack.enter_context(LiveProgress(console)))
        elif not talk.quiet:
            sinks.append(PlainProgress(lambda line: console.print(line, highlight=False)))
        if tensorboard:
            from hdkd_cli.ui.tensorboard import TensorBoardSink

            sinks.append(stack.enter_context(TensorBoardSink(run.path / "tensorboard")))
        run_training(run, settings, data, device, sinks=sinks, resume=resume)
    sys.stdout.write(f"{run.path}\n")
