"""The figures of a run's training, each with its numbers.

K exits, T loss terms, S log records, E evaluations, U updates of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.method.terms import Term
from hdkd_cli.ui.report.drawing import (
    DASHES,
    MUTED,
    PAPER,
    SERIES,
    STEPS,
    Figure,
    Line,
    beside,
    exit_styles,
    legend,
    matrix,
    over_steps,
    per_exit,
    plot,
    rows_of,
    small_multiples,
)  # fmt: skip
from hdkd_cli.ui.report.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

MOMENTS = 6  # pictures of the weights over training
LABELS = SERIES[1]  # what supervision is drawn in: unlike all colours of exits


def training_figures(history: History | None, learned: bool) -> Iterator[Figure]:
    """Figures of a training run: its weights, if they are ``learned`` over time; its progress."""
    if history is None:
        return
    if learned:
        yield _weight_curves(history)
    yield _weight_matrix(history, learned)
    if learned and len(history.step_S) > 1:
        yield _weight_moments(history)
    if learned and history.updated:
        yield _updates(history)
    if len(history.val_step_E):
        yield _validation(history)
    if history.losses_SK.size:
        yield _losses(history)


def _weight_curves(history: History) -> Figure:
    weights_ST, names = history.weights_ST, [term.name for term in history.terms]
    lines = sorted(
        zip(history.terms, _of_terms(history, history.step_S, weights_ST, 1.3), strict=True),
        key=lambda pair: pair[0].teacher or 0,
    )
    panels = {
        f"exit {k} learns from": [line for term, line in lines if term.student in (None, k)]
        for k in range(1, history.num_exits + 1)
    }
    said = ", ".join(
        f"{name} {a:.2f} to {b:.2f}"
        for name, a, b in zip(names, weights_ST[0], weights_ST[-1], strict=True)
    )
    return Figure(
        name="weights-over-training",
        section="training",
        title="Learned weights over training",
        caption="How much each loss counts: what an exit learns from the labels (supervision), and "
        "from each later exit (distillation).",
        alt=f"Loss weights from the first to the last record: {said}.",
        columns=("step", *names),
        rows=beside(history.step_S, weights_ST),
        draw=partial(
            over_steps, panels=panels, y="weight of the loss", top=1.05 * weights_ST.max()
        ),
        height=0.9 + 1.35 * rows_of(history.num_exits),
    )


def _of_terms(history: History, step: Any, values: Any, width: float) -> list[Line]:
    """A line for each term, (steps) and (steps, T), named by what an exit learns from."""
    styles = exit_styles(history.num_exits)

    def named(term: Term) -> tuple[str, dict[str, Any]]:
        if term.teacher is not None:
            return f"exit {term.teacher}", styles[term.teacher - 1]
        if term.kind == "supervision":
            return "labels", {"color": LABELS}
        return term.kind, {"color": MUTED, "linestyle": DASHES[-1]}

    return [
        Line(name, np.column_stack([step, of_term]), {"linewidth": width, **style})
        for (name, style), of_term in zip(map(named, history.terms), values.T, strict=True)
    ]


def _weight_matrix(history: History, learned: bool) -> Figure:
    weights_KK = history.matrix(-1)
    cells = [*_cells(weights_KK)]

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        mesh = _matrix(axes, weights_KK, float(np.nanmax(weights_KK)))
        for student, teacher, weight in cells:
            red, green, blue, _ = mesh.to_rgba(weight)
            bright = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
            axes.text(
                teacher - 0.5, student - 0.5, f"{weight:.2f}", ha="center", va="center",
                fontsize=min(8.0, 52 / len(weights_KK)), color="#0a0a0a" if bright else "#fdfdfd",
            )  # fmt: skip
        axes.set(xlabel="teacher (exit)", ylabel="student (exit)")

    said = ", ".join(
        f"exit {s} from {'labels' if s == t else f'exit {t}'} {weight:.2f}"
        for s, t, weight in cells
    )
    return Figure(
        name="weights-matrix",
        section="training",
        title="Learned weights at the end" if learned else "Fixed weights",
        caption=f"Weights at step {history.step_S[-1]:,}: rows are students, columns their "
        "teachers; on the diagonal the weight of the labels."
        + ("" if learned else " This run does not learn them."),
        alt=f"Teacher by student matrix of loss weights: {said}.",
        columns=("student", "teacher", "weight"),
        rows=cells,
        draw=draw,
        height=min(4.6, 2.2 + 0.2 * len(weights_KK)),
    )


def _weight_moments(history: History) -> Figure:
    count = min(MOMENTS, len(history.step_S))
    places = np.unique(np.linspace(0, len(history.step_S) - 1, count).round().astype(int)).tolist()
    weights = {int(history.step_S[place]): history.matrix(place) for place in places}
    largest = max(float(np.nanmax(weights_KK)) for weights_KK in weights.values())

    def draw(canvas: Canvas) -> None:
        of_both = ("teacher (exit)", "student (exit)")
        panels = small_multiples(canvas, len(weights), *of_both, share=False)
        for axes, (step, weights_KK) in zip(panels, weights.items(), strict=True):
            mesh = _matrix(axes, weights_KK, largest)
            axes.set_title(f"step {step:,}")
        bar = canvas.colorbar(mesh, ax=panels, shrink=0.7, label="weight")
        bar.outline.set_visible(False)

    return Figure(
        name="weights-moments",
        section="training",
        title="Learned weights at moments of training",
        caption="The same matrix at equal distances from the first record to the last, on one "
        "scale of colour.",
        alt="Teacher by student matrices of loss weights at steps "
        + ", ".join(f"{step:,}" for step in weights)
        + ".",
        columns=("step", "student", "teacher", "weight"),
        rows=[(step, *cell) for step, weights_KK in weights.items() for cell in _cells(weights_KK)],
        draw=draw,
        height=0.5 + 1.35 * rows_of(len(weights)),
    )


def _updates(history: History) -> Figure:
    step_U = [record["step"] for record in history.updated]
    objective_U = np.array([record["val_loss"] for record in history.updated], np.float64)
    slope_UT = np.array([record["hypergradient_T"] for record in history.updated], np.float64)
    left_out = sum(not record["applied"] for record in history.updated)
    style = {"color": LABELS, "linewidth": 1}

    def draw(canvas: Canvas) -> None:
        upper, lower = canvas.subplots(2, 1, sharex=True)
        points = np.column_stack([step_U, objective_U])
        plot(upper, [Line("objective", points, style)], ylabel="objective")
        slopes = _of_terms(history, step_U, slope_UT, 0.8)
        plot(lower, slopes, xlabel=STEPS, ylabel="derivative by weight")

    applied = f"{len(step_U):,} updates"
    if left_out:
        applied += f", {left_out:,} of them not applied"
    return Figure(
        name="weights-updates",
        section="training",
        title="What the weights were learned from",
        caption="Above, the validation objective at every update of the weights; below, its "
        f"derivative by each weight (below 0: more of that loss would have helped); {applied}.",
        alt=f"Validation objective and derivatives at {applied}; the objective went from "
        f"{objective_U[0]:.3f} to {objective_U[-1]:.3f}.",
        columns=("step", "objective", *(f"d_{term.name}" for term in history.terms)),
        rows=beside(step_U, np.column_stack([objective_U, slope_UT])),
        draw=draw,
        height=3.4,
    )


def _validation(history: History) -> Figure:
    step_E, accuracy_EK = history.val_step_E, history.evaluated_EK("top1_pct_K")

    def draw(canvas: Canvas) -> None:
        lines = [
            Line(f"exit {k}", np.column_stack([step_E, accuracy_E]), style)
            for k, (accuracy_E, style) in enumerate(
                zip(accuracy_EK.T, exit_styles(history.num_exits), strict=True), 1
            )
        ]
        plot(canvas.subplots(), lines, xlabel=STEPS, ylabel="validation accuracy (%)")
        legend(canvas, "outside lower left", columns=5)

    last = ", ".join(f"exit {k} {a:.2f} %" for k, a in enumerate(accuracy_EK[-1], 1))
    return Figure(
        name="validation-accuracy",
        section="training",
        title="Validation accuracy over training",
        caption="Accuracy of each exit on the val split, as training went on.",
        alt=f"Validation accuracy of each exit over training; at the end {last}.",
        columns=("step", *per_exit(history.num_exits, "top1_pct")),
        rows=beside(step_E, accuracy_EK),
        draw=draw,
    )


def _losses(history: History) -> Figure:
    num_exits, train_SK, val_EK = (
        history.num_exits,
        history.losses_SK,
        history.evaluated_EK("nll_K"),
    )
    kinds = (
        ("train", "train (augmented)", history.step_S, train_SK, {"linestyle": DASHES[1]}),
        ("val", "val", history.val_step_E, val_EK, {"marker": "."}),
    )
    panels = {
        f"exit {k + 1}": [
            Line(name, np.column_stack([step_N, loss_NK[:, k]]), {"color": colour, **style})
            for (_, name, step_N, loss_NK, style), colour in zip(kinds, SERIES, strict=False)
        ]
        for k in range(num_exits)
    }
    last_train = ", ".join(f"{loss:.3g}" for loss in train_SK[-1])
    last_val = ", ".join(f"{loss:.3g}" for loss in val_EK[-1]) if len(val_EK) else "not measured"
    return Figure(
        name="losses",
        section="training",
        title="Train and val loss",
        caption="Cross-entropy of each exit with the labels: on augmented training images (mean "
        "of a stretch, while the weights change) and on the val split. Where val rises and train "
        "falls, an exit overfits.",
        alt=f"Cross-entropy of exits 1 to {num_exits} at the end: train {last_train}; "
        f"val {last_val}.",
        columns=("split", "step", *per_exit(num_exits, "nats")),
        rows=[(split, *row) for split, _, *of_it, _ in kinds for row in beside(*of_it)],
        draw=partial(over_steps, panels=panels, y="cross-entropy (nats)"),
        height=0.9 + 1.35 * rows_of(num_exits),
    )


def _matrix(axes: Axes, weights_KK: NDArray[np.float64], largest: float) -> Any:
    """Draw weights, exit 1 at the top left; return what maps them to colours."""
    every = 1 + len(weights_KK) // 8
    names = ["" if k % every else f"{k + 1}" for k in range(len(weights_KK))]
    axes.spines[:].set_visible(False)
    return matrix(axes, weights_KK, names, largest, edgecolors=PAPER, linewidth=1)


def _cells(weights_KK: NDArray[np.float64]) -> Iterator[tuple[int, int, float]]:
    """(student, teacher, weight), exits counted from 1, of all terms that there are."""
    for (student, teacher), weight in np.ndenumerate(weights_KK):
        if not math.isnan(weight):
            yield student + 1, teacher + 1, float(weight)
