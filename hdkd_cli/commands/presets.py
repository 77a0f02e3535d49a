"""``hdkd presets``: complete named runs to start from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hdkd_cli.commands.options import FormatOption
from hdkd_cli.ui.output import emit

PresetName = Annotated[
    str, typer.Argument(metavar="PRESET", help="Name, or a TOML file.", show_default=False)
]


def list_presets(form: FormatOption = None) -> None:
    """List the presets that come with hdkd."""
    from hdkd_cli.settings import presets

    emit(presets.listed(), form, columns=("name", "status", "summary"))


def show_preset(preset: PresetName) -> None:
    """Print a preset as TOML."""
    from hdkd_cli.settings import presets

    sys.stdout.write(presets.find(preset).read_text(encoding="utf-8-sig"))


def copy_preset(
    preset: PresetName,
    destination: Annotated[
        Path, typer.Argument(metavar="DEST", help="File, or a folder.", show_default=False)
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Copy a preset to edit it; print where it is."""
    from hdkd_cli.settings import presets

    sys.stdout.write(f"{presets.copy(preset, destination, force=force)}\n")
