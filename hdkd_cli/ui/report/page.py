"""The report as one HTML page: no script, nothing to load, its own light and dark.

Everything that is not a number written here goes through ``html.escape``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from hdkd_cli.ui.output import cell
from hdkd_cli.ui.report.comparison import (
    Compared,
    compare,
    differing_settings,
    seed_groups,
    spread,
)
from hdkd_cli.ui.report.content import RunContent, printable
from hdkd_cli.ui.report.drawing import Drawing, css_colours, inline_svg
from hdkd_cli.ui.report.facts import (
    ANYTIME_COLUMNS,
    BUDGET_COLUMNS,
    facts,
    headline,
    setting_rows,
)
from hdkd_cli.ui.report.gallery import ExitPictures, Picture
from hdkd_cli.ui.report.published import published_for
from hdkd_cli.ui.report.style import STYLE

Gallery = tuple[ExitPictures, ...]
Colours = Mapping[str, tuple[str, str]]

SECTIONS = {
    "leaving": "Leaving early, and how far confidence can be trusted",
    "training": "Training, and how much each loss counts",
}
NUMBER = re.compile(r"[−+]?[\d,.]+( M)?|–")


def page(
    runs: Sequence[RunContent],
    shared: Sequence[Drawing],
    of_run: Sequence[Sequence[Drawing]],
    galleries: Sequence[Gallery],
) -> str:
    """The whole page.

    Args:
        runs: The runs, at least one; differences are to the first.
        shared: Drawings with all runs in them.
        of_run: Drawings of each run.
        galleries: Easy and hard images of each run; empty: there are none.
    """
    colours = css_colours(_exit_counts(runs))
    title = "Report: " + ", ".join(run.label for run in runs)
    body = [f"<h1>{escape(title)}</h1>"]
    for run in runs:
        body += _opening(run, several=len(runs) > 1)
    body += _accuracy(runs, shared, colours)
    if len(runs) > 1:
        body += _differing_settings(runs)
        body += _differences(runs)
        body += _seeds(runs)
    for run, drawings, gallery in zip(runs, of_run, galleries, strict=True):
        level = 2
        if len(runs) > 1:
            body.append(_heading(2, f"Run {run.label}"))
            level = 3
        body += _run(run, drawings, gallery, colours, level)
    content = "\n".join(body)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_variables(colours)}{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{content}\n</main>\n</body>\n</html>\n"
    )


def _opening(run: RunContent, *, several: bool) -> Iterator[str]:
    """The run in a sentence, and what cannot be said about it."""
    name = f"<strong>{escape(run.label)}</strong>: " if several else ""
    yield f'<p class="lead">{name}{escape(headline(run))}</p>'
    yield f'<p class="quiet"><code>{escape(run.path)}</code></p>'
    if run.missing:
        items = "".join(
            f"<li>{escape(one.what)}"
            + (f" Next: <code>{escape(one.command)}</code>" if one.command else "")
            + "</li>"
            for one in run.missing
        )
        yield f'<div class="missing" role="note">To know about this run:<ul>{items}</ul></div>'


def _accuracy(
    runs: Sequence[RunContent], shared: Sequence[Drawing], colours: Colours
) -> Iterator[str]:
    measured = [(run, run.evaluation) for run in runs if run.evaluation is not None]
    if not measured:
        return
    yield _heading(2, "Accuracy against cost")
    yield '<div class="figures">'
    for drawing in shared:
        yield _figure(drawing, colours, heading=None)
    tables = []
    for run, evaluation in measured:
        caption = f"Every image leaves at the same exit ({escape(run.label)}, test split)"
        exits = evaluation.anytime["exits"]
        tables.append(_records(exits, ANYTIME_COLUMNS, caption))
        network = published_for(run.settings)
        if network is not None:
            numbers = range(1, len(exits) + 1)
            rows = [[m.method, *(f"{a:.2f}" for a in m.top1_pct_K)] for m in network.methods]
            caption = f"Published for this network, top-1 (%): {escape(network.source)}"
            names = ("method", *(f"exit {k}" for k in numbers))
            tables.append(_table(names, rows, caption=caption))
    yield f"<div>{''.join(tables)}</div></div>"


def _differing_settings(runs: Sequence[RunContent]) -> Iterator[str]:
    yield _heading(2, "What sets the runs apart")
    rows = differing_settings(runs)
    if rows:
        yield _table(("setting", *(run.label for run in runs)), rows)
    else:
        yield "<p>All their settings are the same.</p>"


def _differences(runs: Sequence[RunContent]) -> Iterator[str]:
    first, *others = runs
    if first.evaluation is None:
        return
    for other in others:
        if other.evaluation is None:
            continue
        yield _heading(2, f"{other.label} compared with {first.label}")
        compared = compare(first.evaluation, other.evaluation)
        names = ("", f"{first.label} (%)", f"{other.label} (%)", "difference (points)",
                 "95 % interval", "verdict")  # fmt: skip
        yield _table(names, [_difference(one) for one in compared])
        how = (
            "paired over the images of the test split both share"
            if compared[0].difference.paired
            else "not paired, since the runs have different test images: the intervals are wide"
        )
        yield (
            '<p class="quiet">Bootstrap over test images (10,000 resamples), '
            f"{how}. “Within noise”: the interval reaches 0. It tells how far these networks may "
            "differ on other images, not how far other seeds would.</p>"
        )


def _difference(one: Compared) -> list[str]:
    found = one.difference
    return [
        one.what, f"{one.first_pct:.2f}", f"{one.other_pct:.2f}", _signed(found.value),
        f"{_signed(found.low)} to {_signed(found.high)}", one.verdict,
    ]  # fmt: skip


def _signed(points: float) -> str:
    return f"{points:+.2f}".replace("-", "\N{MINUS SIGN}")


def _seeds(runs: Sequence[RunContent]) -> Iterator[str]:
    for group in seed_groups(runs):
        labels = ", ".join(run.label for run in group)
        yield _heading(2, f"{len(group)} seeds of the same settings")
        yield f"<p>{escape(labels)}</p>"
        rows = [
            [one.what, f"{one.mean_pct:.2f}", f"{one.deviation_pct:.2f}",
             f"{min(one.values_pct):.2f} to {max(one.values_pct):.2f}"]
            for one in spread(group)
        ]  # fmt: skip
        yield _table(("", "mean (%)", "standard deviation", "range (%)"), rows)


def _run(
    run: RunContent, drawings: Sequence[Drawing], gallery: Gallery, colours: Colours, level: int
) -> Iterator[str]:
    for section, title in SECTIONS.items():
        chosen = [drawing for drawing in drawings if drawing.figure.section == section]
        if chosen:
            yield _heading(level, title)
            yield '<div class="figures">'
            yield from (_figure(drawing, colours, heading=level + 1) for drawing in chosen)
            yield "</div>"
        if section == "leaving" and run.evaluation is not None:
            for curve in run.evaluation.curves:
                name = escape(printable(curve.name))
                if curve.policy.guarantee is not None:
                    yield f"<p>Policy {name}: {escape(curve.policy.guarantee.statement)}</p>"
                table = _records(curve.record["points"], BUDGET_COLUMNS)
                yield (
                    f"<details><summary>All operating points of policy {name}</summary>"
                    f"{table}</details>"
                )
    if gallery:
        yield _heading(level, "Easy and hard images")
        yield from _gallery(gallery, level + 1)
    yield _heading(level, "The run")
    rows = [[name, value] for name, value in facts(run).items()]
    yield _table((), rows, style="facts")
    yield _heading(level, "Settings")
    rows_of_settings = setting_rows(run)
    settings = _table(("setting", "value", "from"), rows_of_settings, style="settings")
    yield f"<details><summary>All {len(rows_of_settings)} of them</summary>{settings}</details>"


def _gallery(gallery: Gallery, level: int) -> Iterator[str]:
    yield (
        "<p>Test images by the exit at which they leave, at the operating point chosen "
        "without test images. Easiest: right and most confident. Hardest: wrong, and the exit was "
        "still confident. Below each: the true class, what it was taken for, the confidence.</p>"
    )
    for one in gallery:
        share = f", {100 * one.right / one.samples:.1f} % of them right" if one.samples else ""
        yield _heading(level, f"Exit {one.exit}: {one.samples:,} images leave{share}")
        yield '<div class="figures">'
        for name, pictures in (("Easiest", one.easiest), ("Hardest", one.hardest)):
            items = "".join(map(_picture, pictures)) or "<li>none</li>"
            yield f'<div><p class="quiet">{name}</p><ul class="pics">{items}</ul></div>'
        yield "</div>"


def _picture(picture: Picture) -> str:
    truth, taken = escape(printable(picture.truth)), escape(printable(picture.prediction))
    said = truth if truth == taken else f"{truth}, taken for {taken}"
    sure = f"{100 * picture.confidence:.0f}\N{NO-BREAK SPACE}%"
    return f'<li class="pic"><img src="{picture.data_uri}" alt="{truth}">{said}<br>{sure}</li>'


def _figure(drawing: Drawing, colours: Colours, *, heading: int | None) -> str:
    figure = drawing.figure
    svg = inline_svg(drawing, colours).replace(
        "<svg ", f'<svg role="img" aria-label="{escape(figure.alt)}" ', 1
    )
    title = "" if heading is None else _heading(heading, figure.title)
    return f"<figure>{title}{svg}<figcaption>{escape(figure.caption)}</figcaption></figure>"


def _table(
    names: Iterable[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    style: str = "",
) -> str:
    """A table whose first column heads its rows. ``caption`` is HTML; everything else is text."""
    names = list(names)
    numeric = [all(NUMBER.fullmatch(row[place]) for row in rows) for place in range(len(rows[0]))]
    kinds = [' class="num"' if right else "" for right in numeric]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>'
        for name, kind in zip(names, kinds, strict=False)
    )
    lines = []
    for first, *rest in rows:
        cells = "".join(
            f"<td{kind}>{escape(text)}</td>" for text, kind in zip(rest, kinds[1:], strict=True)
        )
        lines.append(f'<tr><th scope="row"{kinds[0]}>{escape(first)}</th>{cells}</tr>')
    top = f'<p class="quiet">{caption}</p>' if caption else ""
    thead = f"<thead><tr>{head}</tr></thead>" if names else ""
    return (
        f'{top}<div class="wide" tabindex="0"><table class="{style}">{thead}'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _records(
    records: Sequence[Mapping[str, Any]], columns: Mapping[str, str], caption: str = ""
) -> str:
    """A table of records; what is unknown everywhere needs no column."""
    known = {n: title for n, title in columns.items() if any(r[n] is not None for r in records)}
    rows = [[cell(record[name], name) for name in known] for record in records]
    return _table(known.values(), rows, caption=caption)


def _heading(level: int, text: str) -> str:
    return f"<h{level}>{escape(text)}</h{level}>"


def _exit_counts(runs: Sequence[RunContent]) -> Iterator[int]:
    for run in runs:
        if run.history is not None:
            yield run.history.num_exits
        if run.evaluation is not None:
            yield run.evaluation.table.num_exits


def _variables(colours: Colours) -> str:
    light = "".join(f"--{name}:{pair[0]};" for name, pair in colours.items())
    dark = "".join(f"--{name}:{pair[1]};" for name, pair in colours.items())
    return f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
