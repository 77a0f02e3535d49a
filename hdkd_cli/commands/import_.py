"""``hdkd import``: a published checkpoint becomes a run folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hdkd_cli.commands import options
from hdkd_cli.ui.console import talk

if TYPE_CHECKING:
    from hdkd_cli.settings.schema import Settings


def import_(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Checkpoint: of torch.save, or safetensors."),
    ],
    preset: Annotated[
        str,
        typer.Option("--as", metavar="PRESET", help="Preset with the network it was made with."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="RUN", help="Run folder to make.")
    ],
    assignments: options.SetOption = None,
    data_dir: options.DataDirOption = None,
) -> None:
    """Make a run folder of a published MSDNet or RANet checkpoint; print the folder.

    Reads the files of MSDNet-PyTorch, L2W-DEN and RANet-pytorch. Every tensor is used, or the file
    is refused. With --data-dir the classes have the names of the images' folders, else numbers.
    """
    from hdkd_cli.runs.imported import import_checkpoint
    from hdkd_cli.settings.layers import resolve

    flags = {"--data-dir": data_dir and data_dir.absolute()}
    resolved = resolve(preset, assignments=assignments or (), flags=flags)
    for note in resolved.notes:
        talk.note(note)
    settings = resolved.settings
    run = import_checkpoint(
        file, settings, Path(preset).stem, output, classes=lambda count: _classes(settings, count)
    )
    sys.stdout.write(f"{run.path}\n")


def _classes(settings: Settings, count: int) -> list[str]:
    """The names of ``count`` classes: those of the data set where its images are at hand."""
    from hdkd_cli.errors import DataError
    from hdkd_cli.settings.datasets import DATASETS

    spec = DATASETS.get(settings.data.name)
    if settings.data.root is None and (spec is None or spec.needs_root):
        talk.note("classes are called by their numbers; --data-dir gives them their names")
        return [str(label) for label in range(count)]
    from hdkd_cli.data import open_data

    names = list(open_data(settings.data).classes)
    if len(names) != count:
        raise DataError(
            f"the checkpoint tells {count} classes apart, {settings.data.name} has {len(names)}"
        )
    return names
