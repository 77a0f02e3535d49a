"""The report for a terminal: the curves as characters, the same numbers as tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import cycle, pairwise

import numpy as np

from hdkd_cli.ui.output import emit
from hdkd_cli.ui.report.comparison import compare, differing_settings, seed_groups, spread
from hdkd_cli.ui.report.content import RunContent, printable
from hdkd_cli.ui.report.facts import ANYTIME_COLUMNS, BUDGET_COLUMNS, headline
from hdkd_cli.ui.report.figures import Line, lines

WIDTH, HEIGHT = 64, 18  # characters of a chart
SPARKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 40
SHARES = "█▓▒░·▞▚#=+-"


def write_plain(runs: Sequence[RunContent]) -> None:
    """Write the whole report to stdout."""
    for run in runs:
        _say(f"{run.label}  {run.path}", headline(run))
        _say(*(f"  - {one.sentence}" for one in run.missing), "")
    measured = [(run, run.evaluation) for run in runs if run.evaluation is not None]
    if measured:
        _say(*chart(lines(measured)), "")
    for run in runs:
        _tables(run)
    differing = differing_settings(runs)
    if differing:
        _say("settings that set the runs apart")
        names = ("setting", *(run.label for run in runs))
        emit([dict(zip(names, row, strict=True)) for row in differing], "table")
    for other in runs[1:]:
        if runs[0].evaluation is not None and other.evaluation is not None:
            compared = compare(runs[0].evaluation, other.evaluation)
            paired = "" if compared[0].difference.paired else ", not paired: other test images"
            _say(f"{other.label} compared with {runs[0].label} (95 % bootstrap{paired})")
            emit([one.record() for one in compared], "table")
    for group in seed_groups(runs):
        _say(f"seeds of the same settings: {', '.join(run.label for run in group)}")
        emit([one.record() for one in spread(group)], "table")


def chart(series: Sequence[Line]) -> list[str]:
    """Accuracy over cost, a mark a series; where two meet, the first named is seen."""
    points = np.array([point for line in series for point in line.points])
    (left, low), (right, high) = points.min(axis=0), points.max(axis=0)
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for mark, line in reversed(list(zip(_marks(), series, strict=False))):
        for cost, accuracy in line.points:
            x = round((WIDTH - 1) * (cost - left) / max(right - left, 1e-9))
            y = round((HEIGHT - 1) * (high - accuracy) / max(high - low, 1e-9))
            grid[y][x] = mark
    labels = {0: f"{high:.2f}", HEIGHT - 1: f"{low:.2f}"}
    drawn = [f"{labels.get(y, ''):>7} │{''.join(row).rstrip()}" for y, row in enumerate(grid)]
    ends = f"{left:.2f}"
    return [
        "test accuracy (%) over mean multiply-accumulates an image (M)",
        *drawn,
        f"{'':7} └{'─' * WIDTH}",
        f"{'':9}{ends}{right:>{WIDTH - len(ends)}.2f}",
        *(f"  {mark} {line.name}" for mark, line in zip(_marks(), series, strict=False)),
    ]


def _tables(run: RunContent) -> None:
    if run.evaluation is not None:
        _say(f"{run.label}: every image leaves at the same exit")
        emit(run.evaluation.anytime["exits"], "table", columns=tuple(ANYTIME_COLUMNS))
        for curve in run.evaluation.curves:
            _say(f"{run.label}: leaving early, policy {printable(curve.name)}")
            if curve.policy.guarantee is not None:
                _say(curve.policy.guarantee.statement)
            points = sorted(curve.record["points"], key=lambda point: float(point["macs"]))
            bars = [{**p, "who leaves where": _shares(p["exit_share"])} for p in points]
            emit(bars, "table", columns=(*BUDGET_COLUMNS, "who leaves where"))
    if run.history is not None:
        learned = "learned" if run.settings.weights.learned else "fixed"
        _say(f"{run.label}: weights of the losses over training ({learned})")
        names = [term.name for term in run.history.terms]
        emit(
            [
                {"loss": name, "first": w_S[0], "over training": _spark(w_S), "last": w_S[-1]}
                for name, w_S in zip(names, run.history.weights_ST.T.tolist(), strict=True)
            ],
            "table",
        )


def _shares(share_K: Sequence[float]) -> str:
    """A bar of characters, as many of each kind as images leave at each exit."""
    ends = [round(SPARK_WIDTH * end) for end in np.cumsum([0.0, *share_K])]
    return "".join(
        SHARES[k % len(SHARES)] * (end - start) for k, (start, end) in enumerate(pairwise(ends))
    )


def _spark(values_S: Sequence[float]) -> str:
    """A row of characters, higher where the value is."""
    count = min(SPARK_WIDTH, len(values_S))
    places = np.linspace(0, len(values_S) - 1, count).round().astype(int)
    low, high = min(values_S), max(values_S)
    return "".join(
        SPARKS[round((len(SPARKS) - 1) * (values_S[place] - low) / max(high - low, 1e-9))]
        for place in places
    )


def _marks() -> Iterator[str]:
    """What each series of a chart is drawn with."""
    return cycle("o*x+#@%&v^")


def _say(*sentences: str) -> None:
    sys.stdout.writelines(f"{sentence}\n" for sentence in sentences)
