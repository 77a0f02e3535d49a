"""``hdkd settings``: what a run would use, which layer set it, and all settings there are."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from hdkd_cli.choices import SettingsFormat
from hdkd_cli.commands import options
from hdkd_cli.ui.console import talk
from hdkd_cli.ui.output import emit


def show_settings(
    preset: options.PresetArgument = None,
    config: options.ConfigOption = None,
    assignments: options.SetOption = None,
    seed: options.SeedOption = None,
    device: options.DeviceOption = None,
    data_dir: options.DataDirOption = None,
    download: options.DownloadOption = None,
    form: Annotated[SettingsFormat | None, typer.Option("--format", help="Default: toml.")] = None,
) -> None:
    """Print the settings that `hdkd train` would use with the same arguments, and their layers."""
    from hdkd_cli.settings import presets
    from hdkd_cli.settings.layers import resolve
    from hdkd_cli.settings.toml import to_toml

    resolved = resolve(
        preset or presets.DEFAULT,
        config=config,
        assignments=assignments or (),
        flags={
            "--seed": seed,
            "--device": device,
            "--data-dir": data_dir,
            "--download": download,
        },
    )
    if form == "json":
        emit(resolved.record(), "json")
        return
    for note in resolved.notes:
        talk.note(note)
    sys.stdout.write(to_toml(resolved.settings, resolved.origin))


def show_schema() -> None:
    """Print the JSON schema of all settings: types, defaults, meanings."""
    from hdkd_cli.files import shipped
    from hdkd_cli.settings.schema import Settings

    comment = (
        "[ours] marks what the papers leave open and this project decides: docs/concepts/method.md,"
        f" section 6. The pages that descriptions name are in {shipped('docs')}"
    )
    schema = {"$comment": comment, **Settings.model_json_schema()}
    sys.stdout.write(json.dumps(schema, indent=2) + "\n")
