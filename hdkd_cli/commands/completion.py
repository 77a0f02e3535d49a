"""What a shell offers after TAB: presets, settings, run folders, policies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import typer


def presets(incomplete: str) -> list[str]:
    """Presets by name, and TOML files."""
    from hdkd_cli.settings.presets import names

    found = [name for name in names() if name.startswith(incomplete)]
    return found + [path for path in _beneath(incomplete) if path.endswith((".toml", "/"))]


def assignments(incomplete: str) -> list[tuple[str, str]]:
    """Settings for ``--set``, with their defaults; methods after ``method=``."""
    from hdkd_cli.settings.keys import leaves
    from hdkd_cli.settings.methods import METHODS
    from hdkd_cli.settings.schema import Settings
    from hdkd_cli.settings.values import show

    offers = {f"method={name}": "a method of the paper" for name in METHODS}
    offers |= {f"{key}=": show(value) for key, value in leaves(Settings()).items()}
    return [(key, told) for key, told in offers.items() if key.startswith(incomplete)]


def runs(incomplete: str) -> list[str]:
    """Run folders, and folders on the way to some."""
    return [path for path in _beneath(incomplete) if path.endswith("/")]


def policies(ctx: typer.Context, incomplete: str) -> list[str]:
    """Policies of the run on the command line, and JSON files."""
    run = ctx.params.get("run")
    own = sorted(Path(run, "policies").glob("*.json")) if isinstance(run, str) else []
    names = [path.stem for path in own if path.stem.startswith(incomplete)]
    return names + [path for path in _beneath(incomplete) if path.endswith((".json", "/"))]


def _beneath(incomplete: str) -> Iterator[str]:
    """Paths that begin so, folders with a slash, run folders as they are."""
    folder, _, start = incomplete.rpartition("/")
    place = Path(folder or ("/" if incomplete.startswith("/") else "."))
    if place.is_dir():
        for path in sorted(place.glob(f"{start}*")):
            if not path.name.startswith("."):
                yield f"{path}/" if path.is_dir() else str(path)
