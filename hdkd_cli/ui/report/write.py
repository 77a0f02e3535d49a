"""Writes a report: the page, and beside it every figure as PNG, SVG and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

from hdkd_cli.errors import ArtifactError, DataError
from hdkd_cli.files import write_bytes, write_text
from hdkd_cli.runs.images import images_of_run
from hdkd_cli.ui.report.drawing import Drawing, css_colours, drawn, inline_svg
from hdkd_cli.ui.report.facts import differing_settings, facts, headline, setting_rows
from hdkd_cli.ui.report.figures import run_figures, shared_figures
from hdkd_cli.ui.report.gallery import ExitPictures, read_gallery
from hdkd_cli.ui.report.read import Missing, RunContent, comparisons
from hdkd_cli.ui.report.tables import Table, of_comparison, of_exits, of_policies

Gallery = tuple[ExitPictures, ...]

SECTIONS = {
    "leaving": "Leaving early, and how far confidence can be trusted",
    "training": "Training, and how much each loss counts",
}


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
        ArtifactError: a page with test scores is there already, and no run has any now.
        OSError: the disk is full or a folder is not writable.
    """
    _keep_what_cannot_be_made_again(runs, target)
    contents, galleries = zip(*(_with_gallery(run, data_root) for run in runs), strict=True)
    shared = [drawn(figure) for figure in shared_figures(runs)]
    of_run = [
        [drawn(figure) for figure in run_figures(run, "" if len(runs) == 1 else f"run-{place}-")]
        for place, run in enumerate(runs, 1)
    ]
    for drawing in chain(shared, *of_run):
        _write_figure(drawing, figures_folder)
    write_text(target, page(contents, shared, of_run, galleries))


def page(
    runs: Sequence[RunContent],
    shared: Sequence[Drawing],
    of_run: Sequence[Sequence[Drawing]],
    galleries: Sequence[Gallery],
) -> str:
    """The whole page: no script, nothing to load, its own light and dark.

    Args:
        runs: The runs, at least one; differences are to the first.
        shared: Drawings with all runs in them.
        of_run: Drawings of each run.
        galleries: Easy and hard images of each run; empty: there are none.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    colours = css_colours(_exit_counts(runs))
    environment = Environment(
        loader=PackageLoader("hdkd_cli.ui.report", ""), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["inline_svg"] = partial(inline_svg, colours=colours)
    labels = tuple(run.label for run in runs)
    measured = [(run, run.evaluation) for run in runs if run.evaluation is not None]
    return environment.get_template("page.html.j2").render(
        title="Report: " + ", ".join(labels),
        css=Markup((files(__package__) / "style.css").read_text(encoding="utf-8")),
        colours=colours,
        several=len(runs) > 1,
        shared=shared,
        accuracy=[table for run, evaluation in measured for table in of_exits(run, evaluation)],
        apart=Table(("setting", *labels), differing_settings(runs)),
        compared=[of_comparison(one) for one in comparisons(runs)],
        runs=[
            _view(run, drawings, gallery)
            for run, drawings, gallery in zip(runs, of_run, galleries, strict=True)
        ],
    )


def _view(run: RunContent, drawings: Sequence[Drawing], gallery: Gallery) -> Mapping[str, Any]:
    """A run as the template reads it."""
    drawn_in = {s: [one for one in drawings if one.figure.section == s] for s in SECTIONS}
    tables = {"leaving": [*of_policies(run)], "training": []}
    return {
        "content": run,
        "headline": headline(run),
        "parts": [
            (title, drawn_in[section], tables[section])
            for section, title in SECTIONS.items()
            if drawn_in[section] or tables[section]
        ],
        "gallery": gallery,
        "facts": Table((), [*facts(run).items()], style="facts"),
        "settings": Table(("setting", "value", "from"), setting_rows(run), style="settings"),
    }


def _keep_what_cannot_be_made_again(runs: Sequence[RunContent], target: Path) -> None:
    if target.exists() and not any(run.evaluation for run in runs):
        why = " ".join(one.what for run in runs for one in run.missing)
        raise ArtifactError(
            f"{target}: is a report already, and a new one would have no test scores. {why}",
            hint="write it elsewhere with -o FILE, or say where the images are with --data-dir",
            subject=target,
        )


def _with_gallery(run: RunContent, data_root: str | None) -> tuple[RunContent, Gallery]:
    """Easy and hard images; without images, the run says so."""
    if run.evaluation is None or not run.evaluation.curves:
        return run, ()
    try:
        data = images_of_run(run.folder, None if data_root is None else Path(data_root))
        return run, read_gallery(run.evaluation.curves[0], data)
    except DataError as problem:
        said = f"No easy and hard images: {problem}."
        missing = Missing.of(run.folder, said, "report", " --data-dir FOLDER")
        return replace(run, missing=(*run.missing, missing)), ()


def _exit_counts(runs: Sequence[RunContent]) -> Iterator[int]:
    for run in runs:
        if run.history is not None:
            yield run.history.num_exits
        if run.evaluation is not None:
            yield run.evaluation.table.num_exits


def _write_figure(drawing: Drawing, folder: Path) -> None:
    figure = drawing.figure
    write_text(folder / f"{figure.name}.svg", drawing.svg)
    write_bytes(folder / f"{figure.name}.png", drawing.png)
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([figure.columns, *figure.rows])
    write_text(folder / f"{figure.name}.csv", lines.getvalue())
