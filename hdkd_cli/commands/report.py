"""``hdkd report``: a run, or several, as one HTML page, as figure files, or as plain text."""

from __future__ import annotations

import sys
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated

import typer

from hdkd_cli.commands import options
from hdkd_cli.commands.inputs import open_run
from hdkd_cli.errors import UsageError


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Run folders; several stand side by side.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Where to write the page. Default: RUN/reports/report.html of the first run.",
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures",
            metavar="FOLDER",
            help="Where every figure goes as PNG, SVG and CSV. Default: beside the page.",
        ),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Print curves and tables as text, write no file.")
    ] = False,
    data_dir: options.DataDirOption = None,
    device: options.DeviceOption = None,
    batch_size: options.BatchSizeOption = None,
) -> None:
    """Everything about a run on one page that needs no network; print its path.

    Accuracy against cost, where images leave, the learned weights over training, calibration, easy
    and hard images, settings. Of several runs, differences to the first and whether they are noise.
    """
    if plain and (output or figures):
        raise UsageError("--plain prints to stdout: it goes with neither -o nor --figures")
    if len(runs) > len(ascii_uppercase):
        raise UsageError(f"{len(runs)} runs: at most {len(ascii_uppercase)} fit into a report")
    if not plain:
        from hdkd_cli.ui.report.drawing import require_matplotlib

        require_matplotlib()

    from hdkd_cli.ui.report.read import read_runs

    opened = [
        open_run(name, data_dir=data_dir, device=device, batch_size=batch_size) for name in runs
    ]
    by_path = {run.path: run for run in opened}
    contents = read_runs(
        [run.folder for run in opened], lambda folder: by_path[folder.path].scores("test")
    )
    if plain:
        from hdkd_cli.ui.report.plain import write_plain

        write_plain(contents)
        return

    from hdkd_cli.files import is_no_file, led_to
    from hdkd_cli.ui.report.write import write_report

    own = opened[0].path / "reports" / "report.html"
    target = output or own
    place = own if is_no_file(target) else target
    beside = figures or place.with_name(f"{place.stem}-figures")
    write_report(contents, led_to(target), beside, None if data_dir is None else str(data_dir))
    sys.stdout.write(f"{target}\n")
