"""``hdkd study``: methods × seeds × settings from one file, trained, compared, resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hdkd_cli.commands import options
from hdkd_cli.ui.console import talk
from hdkd_cli.ui.output import emit

COLUMNS = (
    "setting", "method", "seed", "mean_top1_pct", "top1_pct", "combined_top1_pct", "seconds",
)  # fmt: skip


def study(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="TOML file of the study.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FOLDER", help="Default: studies/<name of PLAN>."),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, help="Runs trained at a time, one thread each.")
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the plan; say what is missing and how long.")
    ] = False,
    signal: Annotated[
        bool,
        typer.Option("--signal", help="Measure the hypergradient's signal instead of training."),
    ] = False,
    data_dir: options.DataDirOption = None,
    device: options.DeviceOption = None,
    form: options.FormatOption = None,
) -> None:
    """Train every method of PLAN with every seed, compare them, write table, CSV and pictures.

    The same command goes on where an earlier one was stopped. A run that fails is reported and
    left out.
    """
    from hdkd_cli.study.conduct import Conduct

    conduct = Conduct.open(
        plan,
        output or Path("studies") / plan.stem,
        flags={"--data-dir": data_dir and data_dir.absolute(), "--device": device},
        note=talk.note,
    )
    if dry_run:
        emit(conduct.estimate(), form)
        return
    if signal:
        emit(conduct.signal(), form)
        return
    emit(conduct.run(jobs), form, columns=COLUMNS)
