"""Writes a report: the page, and beside it every figure as PNG, SVG and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from hdkd_cli.data import open_data
from hdkd_cli.errors import DataError
from hdkd_cli.evaluation.of_run import refuse_other_images
from hdkd_cli.files import write_bytes, write_text
from hdkd_cli.ui.report.content import Missing, RunContent, printable
from hdkd_cli.ui.report.drawing import Drawing, drawn
from hdkd_cli.ui.report.figures import run_figures, shared_figures
from hdkd_cli.ui.report.gallery import read_gallery
from hdkd_cli.ui.report.page import Gallery, page


def write_report(
    runs: Sequence[RunContent], target: Path, figures_folder: Path, data_root: str | None
) -> None:
    """Write ``target`` (HTML) and the figures.

    Args:
        runs: What to report; differences are to the first.
        target: The page.
        figures_folder: Where figures go.
        data_root: Where the images are now; None: where they were in training.

    Raises:
        OSError: the disk is full or a folder is not writable.
    """
    with_images = [_with_gallery(run, data_root) for run in runs]
    shared = [drawn(figure) for figure in shared_figures(runs)]
    of_run = [
        [drawn(figure) for figure in run_figures(run, "" if len(runs) == 1 else f"run-{place}-")]
        for place, run in enumerate(runs, 1)
    ]
    for drawing in chain(shared, *of_run):
        _write_figure(drawing, figures_folder)
    contents, galleries = zip(*with_images, strict=True)
    write_text(target, page(contents, shared, of_run, galleries))


def _with_gallery(run: RunContent, data_root: str | None) -> tuple[RunContent, Gallery]:
    """Easy and hard images; without images, the run says so."""
    if run.evaluation is None or not run.evaluation.curves:
        return run, ()
    changes = {"download": False} | ({"root": data_root} if data_root else {})
    try:
        data = open_data(run.settings.data.model_copy(update=changes))
        refuse_other_images(run.folder, data)
        return run, read_gallery(run.evaluation.curves[0], data)
    except DataError as problem:
        said = Missing(
            printable(f"No easy and hard images: {problem}."),
            f"hdkd report {run.path} --data-dir FOLDER",
        )
        return replace(run, missing=(*run.missing, said)), ()


def _write_figure(drawing: Drawing, folder: Path) -> None:
    figure = drawing.figure
    write_text(folder / f"{figure.name}.svg", drawing.svg)
    write_bytes(folder / f"{figure.name}.png", drawing.png)
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(figure.columns)
    writer.writerows(figure.rows)
    write_text(folder / f"{figure.name}.csv", lines.getvalue())
