"""The figures of a run's training, each with its numbers.

K exits, T loss terms, S log records, E evaluations, U updates of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hdkd_cli.method.terms import Term
from hdkd_cli.ui.report.drawing import (
    DASHES,
    PALETTE,
    PAPER,
    SERIES,
    Figure,
    exit_colours,
    legend_below,
    rows_of,
    small_multiples,
)
from hdkd_cli.ui.report.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

MOMENTS = 6  # pictures of the weights over training
LABELS = SERIES[1]  # what supervision is drawn in: unlike all colours of exits
OTHERS = PALETTE["muted"][0]  # terms of other kinds


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
    num_exits = history.num_exits
    weights_ST, names = history.weights_ST, [term.name for term in history.terms]

    def draw(canvas: Canvas) -> None:
        from matplotlib.lines import Line2D

        panels = small_multiples(canvas, num_exits)
        colours = [light for light, _ in exit_colours(num_exits)]
        mark: dict[str, Any] = {"marker": "."} if len(history.step_S) == 1 else {}
        keys: dict[str, Line2D] = {}
        for term, weight_S in sorted(
            zip(history.terms, weights_ST.T, strict=True), key=lambda pair: pair[0].teacher or 0
        ):
            source, style = _drawn_as(term, colours)
            keys.setdefault(source, Line2D([], [], label=source, **style))
            for axes in panels if term.student is None else [panels[term.student - 1]]:
                axes.plot(history.step_S, weight_S, linewidth=1.3, **style, **mark)
        for k, axes in enumerate(panels):
            axes.set_title(f"exit {k + 1} learns from")
            axes.set_ylim(0, 1.05 * weights_ST.max())
            axes.locator_params(axis="x", nbins=3)
        canvas.supxlabel("optimiser steps", fontsize="medium")
        canvas.supylabel("weight of the loss", fontsize="medium")
        canvas.legend(handles=list(keys.values()), loc="outside upper left", ncols=5)

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
        height=0.9 + 1.35 * rows_of(num_exits),
    )


def _drawn_as(term: Term, colours: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """What an exit learns from in ``term``, and how its weight is drawn."""
    if term.teacher is not None:
        place = term.teacher - 1
        style = {"color": colours[place], "linestyle": DASHES[place % len(DASHES)]}
        return f"exit {term.teacher}", style
    if term.kind == "supervision":
        return "labels", {"color": LABELS}
    return term.kind, {"color": OTHERS, "linestyle": DASHES[-1]}


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
        height=min(4.6, 2.2 + 0.2 * len(weights_KK)),
    )


def _weight_moments(history: History) -> Figure:
    count = min(MOMENTS, len(history.step_S))
    places = np.unique(np.linspace(0, len(history.step_S) - 1, count).round().astype(int)).tolist()
    largest = max(float(np.nanmax(history.matrix(place))) for place in places)

    def draw(canvas: Canvas) -> None:
        panels = small_multiples(canvas, len(places), share=False)
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
        height=0.5 + 1.35 * rows_of(len(places)),
    )


def _updates(history: History) -> Figure:
    names = [term.name for term in history.terms]
    step_U = [record["step"] for record in history.updated]
    objective_U = np.array([record["val_loss"] for record in history.updated], np.float64)
    slope_UT = np.array([record["hypergradient_T"] for record in history.updated], np.float64)
    left_out = sum(not record["applied"] for record in history.updated)

    def draw(canvas: Canvas) -> None:
        upper, lower = canvas.subplots(2, 1, sharex=True)
        colours = [light for light, _ in exit_colours(history.num_exits)]
        mark: dict[str, Any] = {"marker": "."} if len(step_U) == 1 else {}
        upper.plot(step_U, objective_U, color=LABELS, linewidth=1, **mark)
        upper.set(ylabel="objective")
        for term, slope_U in zip(history.terms, slope_UT.T, strict=True):
            _, style = _drawn_as(term, colours)
            lower.plot(step_U, slope_U, linewidth=0.8, **style, **mark)
        lower.set(xlabel="optimiser steps", ylabel="derivative by weight")

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
        columns=("step", "objective", *(f"d_{name}" for name in names)),
        rows=tuple(
            (step, float(value), *slope_T.tolist())
            for step, value, slope_T in zip(step_U, objective_U, slope_UT, strict=True)
        ),
        draw=draw,
        height=3.4,
    )


def _validation(history: History) -> Figure:
    accuracy_EK = history.evaluated_EK("top1_pct_K")

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        mark = {"marker": "."} if len(accuracy_EK) == 1 else {}
        for k, (light, _) in enumerate(exit_colours(history.num_exits)):
            style = {"color": light, "linestyle": DASHES[k % len(DASHES)], **mark}
            axes.plot(history.val_step_E, accuracy_EK[:, k], label=f"exit {k + 1}", **style)
        axes.set(xlabel="optimiser steps", ylabel="validation accuracy (%)")
        legend_below(canvas, axes, columns=5)

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


def _losses(history: History) -> Figure:
    train_SK, val_EK = history.losses_SK, history.evaluated_EK("nll_K")

    def draw(canvas: Canvas) -> None:
        panels = small_multiples(canvas, history.num_exits)
        for k, axes in enumerate(panels):
            mark: dict[str, Any] = {"marker": "."} if len(train_SK) == 1 else {}
            axes.plot(
                history.step_S, train_SK[:, k], color=SERIES[0], linestyle=DASHES[1],
                label="train (augmented)", **mark,
            )  # fmt: skip
            axes.plot(history.val_step_E, val_EK[:, k], color=SERIES[1], marker=".", label="val")
            axes.set_title(f"exit {k + 1}")
            axes.locator_params(axis="x", nbins=3)
        canvas.supxlabel("optimiser steps", fontsize="medium")
        canvas.supylabel("cross-entropy (nats)", fontsize="medium")
        handles, labels = panels[0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside upper left", ncols=2)

    last_train = ", ".join(f"{loss:.3g}" for loss in train_SK[-1])
    last_val = ", ".join(f"{loss:.3g}" for loss in val_EK[-1]) if len(val_EK) else "not measured"
    kinds = [("train", history.step_S, train_SK), ("val", history.val_step_E, val_EK)]
    return Figure(
        name="losses",
        section="training",
        title="Train and val loss",
        caption="Cross-entropy of each exit with the labels: on augmented training images (mean "
        "of a stretch, while the weights change) and on the val split. Where val rises and train "
        "falls, an exit overfits.",
        alt=f"Cross-entropy of exits 1 to {history.num_exits} at the end: train {last_train}; "
        f"val {last_val}.",
        columns=("split", "step", *(f"exit_{k}_nats" for k in range(1, history.num_exits + 1))),
        rows=tuple(
            (split, int(step), *loss_K.tolist())
            for split, steps, losses in kinds
            for step, loss_K in zip(steps, losses, strict=True)
        ),
        draw=draw,
        height=0.9 + 1.35 * rows_of(history.num_exits),
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
