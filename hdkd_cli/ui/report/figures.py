"""The figures of a report, each with its numbers; those of test scores, in full.

K exits, P operating points, M bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from hdkd_cli.ui.report.drawing import (
    DASHES,
    INK,
    MUTED,
    PAPER,
    SERIES,
    Figure,
    Line,
    beside,
    exit_colours,
    legend,
    matrix,
    per_exit,
    plot,
    rows_of,
    small_multiples,
)  # fmt: skip
from hdkd_cli.ui.report.published import PublishedNetwork, published_for
from hdkd_cli.ui.report.read import BudgetCurve, Evaluation, RunContent, printable
from hdkd_cli.ui.report.training_figures import training_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

COST = "multiply-accumulates per image (M)"
MOST_CLASSES = 40  # that a matrix has room for


def shared_figures(runs: Sequence[RunContent]) -> Iterator[Figure]:
    """Figures with all runs in them."""
    measured = [(run, run.evaluation) for run in runs if run.evaluation is not None]
    if measured:
        yield _accuracy_against_cost(measured)


def run_figures(run: RunContent, prefix: str) -> Iterator[Figure]:
    """Figures of one run; ``prefix`` starts their names."""
    training = training_figures(run.history, run.settings.weights.learned)
    for figure in chain(_of_evaluation(run), training):
        yield replace(figure, name=prefix + figure.name)


def lines(runs: Sequence[tuple[RunContent, Evaluation]]) -> list[Line]:
    """The curves of all runs: each exit alone, and every policy."""
    found = []
    several = len(runs) > 1
    for place, (run, evaluation) in enumerate(runs):
        prefix = f"{run.label}: " if several else ""
        colours = SERIES[place % len(SERIES) :] + SERIES[: place % len(SERIES)]
        exits = tuple((e["macs"] / 1e6, e["top1_pct"]) for e in evaluation.anytime["exits"])
        mark = {"marker": "os^Dvp"[place % 6], "color": colours[0]}
        found.append(
            Line(f"{prefix}every image leaves at exit k", exits, mark | {"linestyle": "none"})
        )
        for number, curve in enumerate(evaluation.curves):
            points = sorted((p["macs"] / 1e6, p["top1_pct"]) for p in curve.record["points"])
            style = {
                "linestyle": DASHES[number % len(DASHES)],
                "color": colours[0] if several else colours[(number + 1) % len(colours)],
                **({"marker": "."} if len(points) < 10 else {}),
            }
            name = f"{prefix}leaving early, policy {printable(curve.name)}"
            found.append(Line(name, tuple(points), style))
    return found


def _published_lines(network: PublishedNetwork, macs_K: Sequence[float]) -> list[Line]:
    found = []
    costs = [macs / 1e6 for macs in macs_K]
    for number, method in enumerate(network.methods):
        style = {"color": MUTED, "linewidth": 0.9, "markersize": 6, "marker": "+x1234|"[number]}
        name = f"published: {method.method}"
        points = tuple(zip(costs, method.top1_pct, strict=True))
        found.append(Line(name, points, style | {"linestyle": "none"}))
        if method.budgeted:
            dotted = style | {"linestyle": DASHES[2]}
            found.append(Line(f"{name}, budgeted", method.budgeted, dotted, listed=False))
    return found


def _accuracy_against_cost(runs: Sequence[tuple[RunContent, Evaluation]]) -> Figure:
    series = lines(runs)
    caption = (
        "Test accuracy against the mean cost of an image. Marks: all images leave at the same "
        "exit, 1, 2, … from left to right. Lines: images leave early, each point of a policy with "
        "its own thresholds, none of them fitted on test images."
    )
    networks = {
        network.source: (network, evaluation.table.macs_K)
        for run, evaluation in runs
        if (network := published_for(run.settings)) is not None
    }
    for network, macs_K in networks.values():
        series += _published_lines(network, macs_K)
        caption += (
            f" Grey: published for exactly this network ({network.source}), in its sources' own "
            "protocols: marks are exits at their cost here, dotted lines leave early at the cost "
            "their source gives."
        )

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        plot(axes, series, xlabel=f"mean {COST}", ylabel="test accuracy (%)")
        exits = series[0].points if len(runs) == 1 else ()
        for number, point in enumerate(exits, 1):
            axes.annotate(f"{number}", point, (0, 4), textcoords="offset points", ha="center")
        legend(canvas, "outside lower left", columns=1)

    summary = "; ".join(
        f"{line.name}: {line.points[0][1]:.2f} % at {line.points[0][0]:.2f} M to "
        f"{line.points[-1][1]:.2f} % at {line.points[-1][0]:.2f} M"
        for line in series
    )
    return Figure(
        name="accuracy-against-cost",
        section="accuracy",
        title="Accuracy against cost",
        caption=caption,
        alt=f"Test accuracy against mean cost. {summary}.",
        columns=("series", "macs_millions", "top1_pct"),
        rows=[(line.name, *point) for line in series for point in line.points],
        draw=draw,
        height=3.0 + 0.17 * sum(line.listed for line in series),
    )


def _of_evaluation(run: RunContent) -> Iterator[Figure]:
    if run.evaluation is None:
        return
    for curve in run.evaluation.curves:
        yield _exit_shares(curve)
    yield _reliability(run.evaluation)
    if len(run.classes) <= MOST_CLASSES:
        yield _confusion(run.evaluation, run.classes)


def _exit_shares(curve: BudgetCurve) -> Figure:
    points = sorted(curve.record["points"], key=lambda point: float(point["macs"]))
    costs = [point["macs"] / 1e6 for point in points]
    share_KP = 100 * np.array([point["exit_share"] for point in points]).T
    chosen = curve.point["macs"] / 1e6
    names = [f"exit {k}" for k in range(1, len(share_KP) + 1)]

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        colours = [light for light, _ in exit_colours(len(share_KP))]
        if costs[0] < costs[-1]:
            axes.stackplot(costs, share_KP, labels=names, colors=colours, edgecolor=PAPER, lw=0.5)
            axes.plot(costs, np.zeros(len(costs)), "|", color=INK, clip_on=False, markersize=5)
            axes.axvline(chosen, color=INK, linewidth=1, linestyle=DASHES[1])
            axes.set_xlim(costs[0], costs[-1])
        else:  # one operating point
            axes.set_xlim(-1, 1)
            below = 0.0
            for share, name, colour in zip(share_KP[:, 0], names, colours, strict=True):
                axes.bar([f"{costs[0]:.2f}"], share, 0.4, below, color=colour, label=name)
                below += share
        axes.set(xlabel=f"mean {COST}", ylabel="test images that leave (%)", ylim=(0, 100))
        axes.grid(False)
        legend(canvas, "outside lower left", columns=5)

    ends = ((costs[0], share_KP[:, 0]), (costs[-1], share_KP[:, -1]))
    said = "; ".join(
        f"at {cost:.2f} M " + ", ".join(f"{s:.0f} %" for s in share) for cost, share in ends
    )
    return Figure(
        name=f"exit-shares-{_file_name(curve.name)}",
        section="leaving",
        title=f"Where images leave: policy {printable(curve.name)}",
        caption="Share of the test images that leave at each exit, over the mean cost of an image. "
        "Ticks on the axis: operating points. Dashed: the one chosen without test images."
        if costs[0] < costs[-1]
        else "Share of the test images that leave at each exit, at the only cost there is.",
        alt=f"Stacked shares of exits 1 to {len(share_KP)} over the budget: {said}.",
        columns=("macs_millions", *per_exit(len(share_KP), "pct")),
        rows=beside(costs, share_KP.T),
        draw=draw,
    )


def _reliability(evaluation: Evaluation) -> Figure:
    exits = evaluation.anytime["exits"]
    bins = len(evaluation.reliability_K[0].count_M)
    edge_M = 100 * np.arange(bins + 1) / bins

    def draw(canvas: Canvas) -> None:
        panels = small_multiples(canvas, len(exits), "confidence (%)", "right (%)")
        for axes, exit_, diagram in zip(panels, exits, evaluation.reliability_K, strict=True):
            accuracy_M = 100 * np.nan_to_num(diagram.accuracy_M)
            axes.bar(edge_M[:-1] + 50 / bins, accuracy_M, 90 / bins, color=SERIES[0])
            axes.plot([0, 100], [0, 100], color=INK, linewidth=1, linestyle=DASHES[1])
            said = f"exit {exit_['exit']}\nECE {exit_['ece_pct']:.1f} %"
            if exit_["auroc"] is not None:
                said += f"\nAUROC {exit_['auroc']:.3f}"
            axes.set_title(said)
            axes.set(xlim=(0, 100), ylim=(0, 100), xticks=(0, 50, 100), yticks=(0, 50, 100))

    return Figure(
        name="reliability",
        section="leaving",
        title="Calibration of each exit",
        caption="Bars: how often an exit is right when it is so sure (largest probability); on the "
        "dashed line it would be perfectly calibrated. ECE: mean distance from that line, weighted "
        "by images. AUROC: how well confidence tells right from wrong (1: perfectly, 0.5: not at "
        "all).",
        alt="Reliability diagrams. "
        + "; ".join(f"exit {e['exit']}: ECE {e['ece_pct']:.1f} %" for e in exits)
        + ".",
        columns=("exit", "bin_low_pct", "bin_high_pct", "images", "confidence_pct", "right_pct"),
        rows=[
            (
                exit_["exit"],
                *edge_M[m : m + 2].tolist(),
                int(one.count_M[m]),
                *(
                    100 * float(x_M[m]) if one.count_M[m] else None
                    for x_M in (one.confidence_M, one.accuracy_M)
                ),
            )
            for exit_, one in zip(exits, evaluation.reliability_K, strict=True)
            for m in range(bins)
        ],
        draw=draw,
        height=0.5 + 1.65 * rows_of(len(exits)),
    )


def _confusion(evaluation: Evaluation, classes: Sequence[str]) -> Figure:
    count_CC = evaluation.confusion_CC
    share_CC = 100 * count_CC / np.maximum(1, count_CC.sum(axis=1, keepdims=True))

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        mesh = matrix(axes, share_CC, classes, 100)
        axes.tick_params(labelsize=min(9.0, 150 / len(classes)))
        axes.tick_params(axis="x", rotation=90)
        axes.set(xlabel="taken for", ylabel="true class")
        canvas.colorbar(mesh, ax=axes, shrink=0.7, label="images of the class (%)")

    wrong_CC = count_CC - np.diag(count_CC.diagonal())
    true, taken = divmod(int(wrong_CC.argmax()), len(classes))
    return Figure(
        name="confusion",
        section="leaving",
        title="What is taken for what",
        caption="Test images at the last exit: rows are true classes, columns what they were "
        "taken for. A row sums to 100 %.",
        alt=f"Confusion matrix of {len(classes)} classes. Most frequent mistake: "
        f"{wrong_CC[true, taken]} images of {classes[true]} taken for {classes[taken]}.",
        columns=("class", "taken_for", "images", "pct_of_class"),
        rows=[
            (classes[t], classes[p], int(count_CC[t, p]), float(share_CC[t, p]))
            for t, p in np.ndindex(count_CC.shape)
        ],
        draw=draw,
        height=4.4,
    )


def _file_name(text: str) -> str:
    """``text`` in characters that no file system or HTML id trips over, still one of a kind."""
    return "".join(
        c if c.isascii() and (c.isalnum() or c == "-") else f"_{ord(c):x}_" for c in text
    )
