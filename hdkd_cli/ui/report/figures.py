"""Every figure of a report: its numbers, and how they are drawn from them.

K exits, P operating points, T loss weights, S log records, M bins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hdkd_cli.ui.report.content import BudgetCurve, Evaluation, RunContent, printable
from hdkd_cli.ui.report.drawing import DASHES, INK, MUTED, PAPER, SERIES, Figure, exit_colours
from hdkd_cli.ui.report.history import History
from hdkd_cli.ui.report.published import Network, published_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

COST = "multiply-accumulates an image (M)"
MOMENTS = 6  # pictures of the weights over training
COLUMNS = 3  # small multiples side by side
LABELS = SERIES[1]  # what supervision is drawn in: unlike all colours of exits


@dataclass(frozen=True)
class Line:
    """A series of the accuracy-against-cost figure.

    Attributes:
        name: As the legend says it.
        points: (cost in M, accuracy in %), by cost.
        style: How matplotlib draws it.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    style: Mapping[str, Any]


def shared_figures(runs: Sequence[RunContent]) -> Iterator[Figure]:
    """Figures with all runs in them."""
    measured = [(run, run.evaluation) for run in runs if run.evaluation is not None]
    if measured:
        yield _accuracy_against_cost(measured)


def run_figures(run: RunContent, prefix: str) -> Iterator[Figure]:
    """Figures of one run; ``prefix`` starts their names."""
    figures = [
        *_of_evaluation(run.evaluation),
        *_of_history(run.history, run.settings.weights.learned),
    ]
    for figure in figures:
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


def _published_lines(network: Network, macs_K: Sequence[float]) -> list[Line]:
    found = []
    for number, method in enumerate(network.methods):
        style = {"color": MUTED, "linewidth": 0.9, "markersize": 3.5, "marker": "+x1234|"[number]}
        costs = [macs / 1e6 for macs in macs_K]
        points = tuple(zip(costs, method.top1_pct_K, strict=True))
        name = f"published: {method.method}"
        found.append(Line(name, points, style | {"linestyle": "none"}))
        if method.budgeted:
            found.append(Line(f"{name}, budgeted", method.budgeted, style | {"linestyle": ":"}))
    return found


def _accuracy_against_cost(runs: Sequence[tuple[RunContent, Evaluation]]) -> Figure:
    series = lines(runs)
    caption = (
        "Test accuracy against the mean cost of an image. Marks: all images leave at the same "
        "exit, 1, 2, … from left to right. Lines: images leave early, each point of a policy with "
        "its thresholds from the val split."
    )
    for run, evaluation in runs:
        network = published_for(run.settings)
        if network is not None:
            series += _published_lines(network, evaluation.table.macs_K)
            caption += (
                f" Grey: published for exactly this network ({network.source}), exits at their "
                "cost here, budgeted points at the cost their source gives."
            )
            break

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for line in series:
            axes.plot(*zip(*line.points, strict=True), label=line.name, **line.style)
        exits = series[0].points if len(runs) == 1 else ()
        for number, point in enumerate(exits, 1):
            axes.annotate(f"{number}", point, (0, 4), textcoords="offset points", ha="center")
        axes.set(xlabel=f"mean {COST}", ylabel="test accuracy (%)")
        _legend_below(canvas, axes, columns=1)

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
        rows=tuple((line.name, *point) for line in series for point in line.points),
        draw=draw,
        height=3.0 + 0.17 * len(series),
    )


def _of_evaluation(evaluation: Evaluation | None) -> Iterator[Figure]:
    if evaluation is None:
        return
    for curve in evaluation.curves:
        yield _exit_shares(curve)
    yield _reliability(evaluation)


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
            below = 0.0
            for share, name, colour in zip(share_KP[:, 0], names, colours, strict=True):
                axes.bar([f"{costs[0]:.2f}"], share, 0.4, below, color=colour, label=name)
                below += share
        axes.set(xlabel=f"mean {COST}", ylabel="test images that leave (%)", ylim=(0, 100))
        axes.grid(False)
        _legend_below(canvas, axes, columns=5)

    ends = ((costs[0], share_KP[:, 0]), (costs[-1], share_KP[:, -1]))
    said = "; ".join(
        f"at {cost:.2f} M " + ", ".join(f"{s:.0f} %" for s in share) for cost, share in ends
    )
    return Figure(
        name=f"exit-shares-{_file_name(curve.name)}",
        section="leaving",
        title=f"Who leaves where: policy {printable(curve.name)}",
        caption="Share of the test images that leave at each exit, over the mean cost of an image. "
        "Ticks on the axis: operating points. Dashed: the point chosen on validation images.",
        alt=f"Stacked shares of exits 1 to {len(share_KP)} over the budget: {said}.",
        columns=("macs_millions", *(f"exit_{k}_pct" for k in range(1, len(share_KP) + 1))),
        rows=tuple((c, *s.tolist()) for c, s in zip(costs, share_KP.T, strict=True)),
        draw=draw,
    )


def _reliability(evaluation: Evaluation) -> Figure:
    exits = evaluation.anytime["exits"]
    bins = len(evaluation.reliability_K[0].count_M)

    def draw(canvas: Canvas) -> None:
        panels = _small_multiples(canvas, len(exits))
        for axes, exit_, diagram in zip(panels, exits, evaluation.reliability_K, strict=True):
            centre_M = (np.arange(bins) + 0.5) / bins * 100
            accuracy_M = 100 * np.nan_to_num(diagram.accuracy_M)
            axes.bar(centre_M, accuracy_M, 90 / bins, color=SERIES[0])
            axes.plot([0, 100], [0, 100], color=INK, linewidth=1, linestyle=DASHES[1])
            said = f"exit {exit_['exit']}\nECE {exit_['ece_pct']:.1f} %"
            if exit_["auroc"] is not None:
                said += f"\nAUROC {exit_['auroc']:.3f}"
            axes.set_title(said)
            axes.set(xlim=(0, 100), ylim=(0, 100), xticks=(0, 50, 100), yticks=(0, 50, 100))
        canvas.supxlabel("confidence (%)", fontsize="medium")
        canvas.supylabel("right (%)", fontsize="medium")

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
        rows=tuple(
            (
                exit_["exit"],
                100 * m / bins,
                100 * (m + 1) / bins,
                int(diagram.count_M[m]),
                _or_none(100 * diagram.confidence_M[m]),
                _or_none(100 * diagram.accuracy_M[m]),
            )
            for exit_, diagram in zip(exits, evaluation.reliability_K, strict=True)
            for m in range(bins)
        ),
        draw=draw,
        height=0.5 + 1.65 * math.ceil(len(exits) / COLUMNS),
    )


def _of_history(history: History | None, learned: bool) -> Iterator[Figure]:
    if history is None:
        return
    if learned:
        yield _weight_curves(history)
    yield _weight_matrix(history, learned)
    if learned and len(history.step_S) > 1:
        yield _weight_moments(history)
    if len(history.val_step_E):
        yield _validation(history)


def _weight_curves(history: History) -> Figure:
    num_exits = history.num_exits
    weights_ST, names = history.weights_ST, history.started["terms"]
    student_T = [*range(num_exits), *(student for student, _ in history.pairs)]
    teacher_T = [*range(num_exits), *(teacher for _, teacher in history.pairs)]

    def draw(canvas: Canvas) -> None:
        from matplotlib.lines import Line2D

        panels = _small_multiples(canvas, num_exits)
        colours = [light for light, _ in exit_colours(num_exits)]
        mark = {"marker": "."} if len(history.step_S) == 1 else {}
        for t, weight_S in enumerate(weights_ST.T):
            student, teacher = student_T[t], teacher_T[t]
            style = {"color": LABELS}
            if t >= num_exits:
                style = {"color": colours[teacher], "linestyle": DASHES[teacher % len(DASHES)]}
            panels[student].plot(history.step_S, weight_S, linewidth=1.3, **style, **mark)
        for k, axes in enumerate(panels):
            axes.set_title(f"exit {k + 1} learns from")
            axes.set_ylim(0, 1.05 * weights_ST.max())
            axes.locator_params(axis="x", nbins=3)
        canvas.supxlabel("optimiser steps", fontsize="medium")
        canvas.supylabel("weight of the loss", fontsize="medium")
        keys = [Line2D([], [], color=LABELS, label="labels")]
        for k in sorted({teacher for _, teacher in history.pairs}):
            dashes = DASHES[k % len(DASHES)]
            keys.append(Line2D([], [], color=colours[k], linestyle=dashes, label=f"exit {k + 1}"))
        canvas.legend(handles=keys, loc="outside upper left", ncols=5)

    first, last = weights_ST[0], weights_ST[-1]
    said = ", ".join(
        f"{name} {a:.2f} to {b:.2f}" for name, a, b in zip(names, first, last, strict=True)
    )
    return Figure(
        name="weights-over-training",
        section="training",
        title="Learned weights over training",
        caption="How much each loss counts: what an exit learns from the labels (supervision), and "
        "from each later exit (distillation).",
        alt=f"Loss weights from the first to the last record: {said}.",
        columns=("step", *names),
        rows=tuple((int(s), *w.tolist()) for s, w in zip(history.step_S, weights_ST, strict=True)),
        draw=draw,
        height=0.9 + 1.35 * math.ceil(num_exits / COLUMNS),
    )


def _weight_matrix(history: History, learned: bool) -> Figure:
    weights_KK = history.matrix(-1)
    step = int(history.step_S[-1])

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        mesh = _matrix(axes, weights_KK, float(np.nanmax(weights_KK)))
        size = min(8.0, 52 / len(weights_KK))
        for (student, teacher), weight in np.ndenumerate(weights_KK):
            if not math.isnan(weight):
                red, green, blue, _ = mesh.to_rgba(weight)
                bright = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
                axes.text(
                    teacher + 0.5, student + 0.5, f"{weight:.2f}", fontsize=size,
                    color="#0a0a0a" if bright else "#fdfdfd", ha="center", va="center",
                )  # fmt: skip
        axes.set(xlabel="teacher (exit)", ylabel="student (exit)")

    said = ", ".join(
        f"exit {s + 1} from {'labels' if s == t else f'exit {t + 1}'} {w:.2f}"
        for (s, t), w in np.ndenumerate(weights_KK)
        if not math.isnan(w)
    )
    return Figure(
        name="weights-matrix",
        section="training",
        title="Learned weights at the end" if learned else "Fixed weights",
        caption=f"Weights at step {step:,}: rows are students, columns their teachers; on the "
        "diagonal the weight of the labels."
        + ("" if learned else " This run does not learn them."),
        alt=f"Teacher by student matrix of loss weights: {said}.",
        columns=("student", "teacher", "weight"),
        rows=tuple(_matrix_rows(weights_KK)),
        draw=draw,
        height=3.1,
    )


def _weight_moments(history: History) -> Figure:
    count = min(MOMENTS, len(history.step_S))
    places = np.unique(np.linspace(0, len(history.step_S) - 1, count).round().astype(int)).tolist()
    largest = max(float(np.nanmax(history.matrix(place))) for place in places)

    def draw(canvas: Canvas) -> None:
        panels = _small_multiples(canvas, len(places), share=False)
        for axes, place in zip(panels, places, strict=True):
            mesh = _matrix(axes, history.matrix(place), largest)
            axes.set_title(f"step {history.step_S[place]:,}")
        canvas.supxlabel("teacher (exit)", fontsize="medium")
        canvas.supylabel("student (exit)", fontsize="medium")
        bar = canvas.colorbar(mesh, ax=panels, shrink=0.7, label="weight")
        bar.outline.set_visible(False)

    return Figure(
        name="weights-moments",
        section="training",
        title="Learned weights at moments of training",
        caption="The same matrix at equal distances from the first record to the last, on one "
        "scale of colour.",
        alt="Teacher by student matrices of loss weights at steps "
        + ", ".join(f"{history.step_S[place]:,}" for place in places)
        + ".",
        columns=("step", "student", "teacher", "weight"),
        rows=tuple(
            (int(history.step_S[place]), *row)
            for place in places
            for row in _matrix_rows(history.matrix(place))
        ),
        draw=draw,
        height=0.5 + 1.35 * math.ceil(len(places) / COLUMNS),
    )


def _validation(history: History) -> Figure:
    accuracy_EK = history.val_top1_pct_EK

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        mark = {"marker": "."} if len(accuracy_EK) == 1 else {}
        for k, (light, _) in enumerate(exit_colours(history.num_exits)):
            style = {"color": light, "linestyle": DASHES[k % len(DASHES)], **mark}
            axes.plot(history.val_step_E, accuracy_EK[:, k], label=f"exit {k + 1}", **style)
        axes.set(xlabel="optimiser steps", ylabel="validation accuracy (%)")
        _legend_below(canvas, axes, columns=5)

    last = ", ".join(f"exit {k} {a:.2f} %" for k, a in enumerate(accuracy_EK[-1], 1))
    return Figure(
        name="validation-accuracy",
        section="training",
        title="Validation accuracy over training",
        caption="Accuracy of each exit on the val split, as training went on.",
        alt=f"Validation accuracy of each exit over training; at the end {last}.",
        columns=("step", *(f"exit_{k}_top1_pct" for k in range(1, history.num_exits + 1))),
        rows=tuple(
            (int(s), *a.tolist()) for s, a in zip(history.val_step_E, accuracy_EK, strict=True)
        ),
        draw=draw,
    )


def _matrix(axes: Axes, weights_KK: Any, largest: float) -> Any:
    """Draw a matrix, exit 1 at the top left; return what maps weights to colours."""
    num_exits = len(weights_KK)
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(weights_KK), cmap="cividis", vmin=0, vmax=largest,
        edgecolors=PAPER, linewidth=1,
    )  # fmt: skip
    ticks = [k + 0.5 for k in range(0, num_exits, 1 + num_exits // 8)]
    names = [f"{tick + 0.5:.0f}" for tick in ticks]
    axes.set_xticks(ticks, names)
    axes.set_yticks(ticks, names)
    axes.set(aspect="equal", ylim=(num_exits, 0))
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return mesh


def _matrix_rows(weights_KK: Any) -> Iterator[tuple[int, int, float]]:
    for (student, teacher), weight in np.ndenumerate(weights_KK):
        if not math.isnan(weight):
            yield student + 1, teacher + 1, float(weight)


def _small_multiples(canvas: Canvas, count: int, *, share: bool = True) -> list[Axes]:
    """``count`` panels in rows of a few, on shared axes."""
    rows = math.ceil(count / COLUMNS)
    grid = canvas.subplots(
        rows, min(count, COLUMNS), squeeze=False, sharey=share,
        sharex="col" if share else False,
    )  # fmt: skip
    panels = list(grid.flat)
    for unused in panels[count:]:
        unused.set_visible(False)
    for above in panels[max(0, count - COLUMNS) : count]:
        above.tick_params(labelbottom=True)  # nothing is below it
    return panels[:count]


def _legend_below(canvas: Canvas, axes: Axes, *, columns: int) -> None:
    canvas.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=columns)


def _file_name(text: str) -> str:
    """``text`` with nothing a file system or an HTML id could trip over."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
