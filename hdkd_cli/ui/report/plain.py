"""The report for a terminal: the curves as characters, the same numbers as tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import cycle, pairwise

import numpy as np

from hdkd_cli.evaluation.compare import brief
from hdkd_cli.ui.output import emit
from hdkd_cli.ui.report.drawing import Line
from hdkd_cli.ui.report.facts import ANYTIME_COLUMNS, BUDGET_COLUMNS, differing_settings, headline
from hdkd_cli.ui.report.figures import lines
from hdkd_cli.ui.report.read import RunContent, comparisons, printable

WIDTH, HEIGHT = 64, 18  # characters of a chart
SPARKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 40
COMPARED = (
    "other", "what", "first_pct", "other_pct", "difference_pct", "low_pct", "high_pct",
    "seeds_t_low_pct", "seeds_t_high_pct", "p_holm", "verdict", "verdict_over",
)  # fmt: skip
LEVELS = ("what", "mean_pct", "deviation_pct", "min_pct", "max_pct")
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
    for comparison in map(brief, comparisons(runs)):
        for one in comparison.incomparable:
            _say(f"{one.name} is not compared with {comparison.first}: {one.reason}")
        _say(f"compared with {comparison.first}, 95 % intervals")
        emit([one.model_dump() for one in comparison.differences], "table", columns=COMPARED)
        for side in comparison.sides:
            if len(side.runs) > 1:
                _say(f"{len(side.runs)} seeds of {side.name}: {', '.join(side.runs)}")
                emit([one.model_dump() for one in side.levels], "table", columns=LEVELS)


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
        "test accuracy (%) over mean multiply-accumulates per image (M)",
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
            bars = [{**p, "exit shares": _shares(p["exit_share"])} for p in points]
            emit(bars, "table", columns=(*BUDGET_COLUMNS, "exit shares"))
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
