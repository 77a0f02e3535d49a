"""Presets: complete named runs, one TOML file each.

A preset's ``[preset]`` table says what it is; everything else in the file is settings. Presets are
found in the package, or beside it when it runs from a checkout.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from hdkd_cli import files
from hdkd_cli.choices import PresetStatus
from hdkd_cli.errors import PresetError, UsageError
from hdkd_cli.reading import read_toml
from hdkd_cli.records.settings import PresetEntry, Presets
from hdkd_cli.settings.datasets import DATASETS
from hdkd_cli.settings.section import Section

DEFAULT = "digits"


class PresetInfo(Section):
    """The ``[preset]`` table."""

    summary: str
    """One line: what is trained on what, and how long it takes."""
    status: PresetStatus
    """A sensible start, or a run whose expected numbers were measured."""
    source: str
    """Paper, table or reasoning the settings come from."""
    expected: dict[str, Any] = Field(default_factory=dict)
    """What a run should reach, for reproduced presets."""


@dataclass(frozen=True)
class Preset:
    """A preset file that was read.

    Attributes:
        name: What it is called on the command line: a name, or the path that was given.
        path: The file.
        info: Its ``[preset]`` table; None for a file that has none (a run's ``settings.toml``).
        tables: Its settings, as written.
    """

    name: str
    path: Path
    info: PresetInfo | None
    tables: dict[str, Any]


def folder() -> Path:
    """Where the presets are."""
    return files.shipped("presets")


def names() -> list[str]:
    """The presets that come with the package, sorted."""
    base = folder()
    return sorted(p.relative_to(base).with_suffix("").as_posix() for p in base.rglob("*.toml"))


def listed() -> Presets:
    """What the presets say about themselves.

    Raises:
        PresetError: one cannot be read.
    """
    infos = {name: read(name).info for name in names()}
    return Presets(
        presets=tuple(
            PresetEntry(name=name, **(info.model_dump() if info else {}))
            for name, info in infos.items()
        )
    )


def find(preset: str) -> Path:
    """The file of a preset, by name or by path.

    Raises:
        PresetError: there is no such preset; the message has the closest name and all of them.
    """
    known = names()
    if preset in known:
        return folder() / f"{preset}.toml"
    path = Path(preset)
    if path.is_file():
        return path
    if path.is_dir():
        is_run = (path / "settings.toml").is_file()
        raise PresetError(
            f"preset {preset}: is a {'run' if is_run else 'folder'}",
            hint=f"`hdkd train --resume {preset}` goes on with a run"
            if is_run
            else f"`--set data.name=folder --data-dir {preset}` trains on images in it",
            subject=preset,
        )
    if path.suffix == ".toml" or len(path.parts) > 1:
        raise PresetError(f"preset {preset}: no such file")
    if preset in DATASETS:
        own = [name for name in known if name == preset or name.startswith(f"{preset}-")]
        others = f"; presets for it: {', '.join(own)}" if own else ""
        raise PresetError(
            f"preset {preset}: is a data set",
            hint=f"`hdkd train --set data.name={preset}` trains on it{others}",
            subject=preset,
        )
    near = difflib.get_close_matches(preset, known, n=1)
    hint = f"closest: {near[0]}; " if near else ""
    raise PresetError(
        f"preset {preset}: no such preset",
        hint=f"{hint}there are: {', '.join(known)}",
        subject=preset,
    )


def read(preset: str) -> Preset:
    """Find and read a preset.

    Raises:
        PresetError: it is not there, is not TOML, or its ``[preset]`` table is wrong.
    """
    path = find(preset)
    tables = read_toml(path, PresetError)
    info = None
    if "preset" in tables:
        try:
            info = PresetInfo.model_validate(tables.pop("preset"), strict=True)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(('preset', *map(str, problem['loc'])))}: {problem['msg']}"
                for problem in error.errors()
            )
            raise PresetError(f"{path}: {problems}") from None
    return Preset(preset, path, info, tables)


def copy(preset: str, destination: Path, *, force: bool = False) -> Path:
    """Copy a preset's file, to edit it; return where it was written.

    Args:
        preset: Name or path.
        destination: The file to write, or an existing folder to write it into.
        force: Replace a file that is there.

    Raises:
        PresetError: there is no such preset.
        UsageError: the destination is there and ``force`` is off.
    """
    source = find(preset)
    target = destination / source.name if destination.is_dir() else destination
    if target.exists() and not (force or files.is_no_file(target)):
        raise UsageError(f"{target}: is there already", hint="--force replaces it", subject=target)
    files.write_bytes(files.led_to(target), source.read_bytes())
    return target
