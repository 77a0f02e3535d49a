"""The tables of a report's page: rows of text out of records. C classes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from hdkd_cli.evaluation.anytime import most_often_taken_for
from hdkd_cli.evaluation.compare import brief
from hdkd_cli.records.comparison import ComparedSide, Comparison, Difference
from hdkd_cli.ui.output import cell
from hdkd_cli.ui.report.facts import ANYTIME_COLUMNS, BUDGET_COLUMNS
from hdkd_cli.ui.report.published import published_for
from hdkd_cli.ui.report.read import Evaluation, RunContent, printable

_NUMBER = re.compile(r"[−+]?[\d,.]+( M)?( to [−+]?[\d,.]+)?|–")


class Table(NamedTuple):
    """Rows of text, the first column of which heads them; ``title`` is of what folds it away."""

    names: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    title: str = ""
    style: str = ""
    guarantee: str = ""  # told before it

    @property
    def numeric(self) -> list[bool]:
        """Whether a column holds numbers alone."""
        return [all(map(_NUMBER.fullmatch, column)) for column in zip(*self.rows, strict=True)]


def of_exits(run: RunContent, evaluation: Evaluation) -> Iterator[Table]:
    """Every exit alone, and what others have published for this network."""
    exits = evaluation.anytime["exits"]
    caption = f"Every image leaves at the same exit ({run.label}, test split)"
    yield _of_records(exits, ANYTIME_COLUMNS, caption=caption)
    network = published_for(run.settings)
    if network is not None:
        rows = [[m.method, *(f"{a:.2f}" for a in m.top1_pct)] for m in network.methods]
        names = ("method", *(f"exit {k}" for k in range(1, len(exits) + 1)))
        yield Table(names, rows, f"Published for this network, top-1 (%): {network.source}")


def of_policies(run: RunContent) -> Iterator[Table]:
    """All operating points of each policy with what it guarantees; each class at the last exit."""
    if run.evaluation is None:
        return
    for curve in run.evaluation.curves:
        name = printable(curve.name)
        guarantee = curve.policy.guarantee
        said = "" if guarantee is None else f"Policy {name}: {guarantee.statement}"
        points = curve.record["points"]
        title = f"All operating points of policy {name}"
        yield _of_records(points, BUDGET_COLUMNS, title=title, guarantee=said)
    yield _of_classes(run.evaluation, run.classes)


def _of_classes(evaluation: Evaluation, classes: Sequence[str]) -> Table:
    rows = []
    for one in sorted(evaluation.anytime["per_class"], key=lambda one: one["top1_pct"][-1] or 0):
        label = one["label"]
        often, count = most_often_taken_for(label, evaluation.anytime["confusion"][label])
        taken = f"{classes[often]} ({count:,})" if count else ""
        right = cell(one["top1_pct"][-1], "top1_pct")
        rows.append([classes[label], f"{one['samples']:,}", right, taken])
    names = ("class", "images", "right (%)", "most often taken for")
    return Table(names, rows, title=f"All {len(classes)} classes at the last exit, worst first")


def of_comparison(comparison: Comparison) -> dict[str, Any]:
    """A comparison as the page shows it."""
    comparison = brief(comparison)
    others = groupby(comparison.differences, lambda one: one.other)
    return {
        "first": comparison.first,
        "incomparable": [(one.name, one.reason) for one in comparison.incomparable],
        "how": _how(comparison),
        "differences": [
            (other, _of_differences(comparison.first, list(found))) for other, found in others
        ],
        "spread": [_of_seeds(side) for side in comparison.sides if len(side.runs) > 1],
    }


def _of_differences(first: str, found: Sequence[Difference]) -> Table:
    seeds = any(one.seeds_deviation_pct is not None for one in found)
    names = ["", f"{first} (%)", f"{found[0].other} (%)", "difference (points)"]
    names += ["95 % over images"]
    names += ["over seeds, Student’s t", "over seeds, bootstrap", "p (Holm)"] if seeds else []
    rows = []
    for one in found:
        row = [one.what, f"{one.first_pct:.2f}", f"{one.other_pct:.2f}"]
        row += [_signed(one.difference_pct), _interval(one.low_pct, one.high_pct)]
        if seeds:
            row += [
                _interval(one.seeds_t_low_pct, one.seeds_t_high_pct),
                _interval(one.seeds_bootstrap_low_pct, one.seeds_bootstrap_high_pct),
                "–" if one.p_holm is None else f"{one.p_holm:.3f}",
            ]
        rows.append([*row, one.verdict])
    return Table((*names, "verdict"), rows)


def _how(comparison: Comparison) -> str:
    said = (
        f"Over images: paired bootstrap over the {comparison.samples:,} test images all share "
        f"({comparison.resamples:,} resamples); it tells how far these networks may differ on "
        "other images, not how far other seeds would. “Within noise”: the interval reaches 0. "
        f"{comparison.comparisons} comparisons are made here: about one interval in twenty misses "
        "by chance alone."
    )
    if any(one.p is not None for one in comparison.differences):
        said += (
            " Over seeds: the verdict follows Student’s t, which assumes normal differences; the "
            "bootstrap is too narrow for a few seeds. p is adjusted by Holm’s method for all "
            "comparisons, the grid of budgets left out."
        )
    return " ".join([said, *(f"{note}." for note in comparison.notes)])


def _of_seeds(side: ComparedSide) -> dict[str, Any]:
    rows = [
        [
            level.what, f"{level.mean_pct:.2f}", f"{level.deviation_pct:.2f}",
            f"{level.min_pct:.2f} to {level.max_pct:.2f}",
        ]
        for level in side.levels
    ]  # fmt: skip
    return {
        "title": f"{len(side.runs)} seeds of {side.name}",
        "runs": ", ".join(side.runs),
        "table": Table(("", "mean (%)", "standard deviation", "range (%)"), rows),
    }


def _of_records(
    records: Sequence[Mapping[str, Any]], columns: Mapping[str, str], **how: str
) -> Table:
    """A table of records; what is unknown everywhere needs no column."""
    known = {n: title for n, title in columns.items() if any(r[n] is not None for r in records)}
    rows = [[cell(record[name], name) for name in known] for record in records]
    return Table(tuple(known.values()), rows, **how)


def _signed(points: float) -> str:
    return f"{points:+.2f}".replace("-", "\N{MINUS SIGN}")


def _interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{_signed(low)} to {_signed(high)}"
