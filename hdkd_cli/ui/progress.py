"""What a person sees of a run: a live view on a terminal, plain lines elsewhere, train.log.

All of them are sinks for the events of ``training/events.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hdkd_cli.method.terms import Term
from hdkd_cli.training.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    Noted,
    RunEnded,
    RunStarted,
    StepLogged,
    TradeoffsMoved,
    WeightsUpdated,
)
from hdkd_cli.ui.console import visible

STEEPEST = 4
"""Derivatives that the live view names."""
QUIET_SECONDS = 30.0
"""Plain progress: a line at least this often while an epoch lasts."""


class Pace:
    """Time left, from the steps done since this process began."""

    def __init__(self, started: RunStarted) -> None:
        self._began, self._first, self._total = (
            time.monotonic(),
            started.first_step,
            started.total_steps,
        )

    def left(self, step: int) -> str:
        """Time to the last step at the pace so far, as h:mm:ss."""
        done = step - self._first
        if done <= 0:
            return "?"
        per_step = (time.monotonic() - self._began) / done
        return duration(per_step * (self._total - step))


class PlainProgress:
    """One line per epoch (and every half minute of a long one).

    Args:
        write: Takes one line without its newline.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._started: RunStarted | None = None
        self._latest: StepLogged | None = None
        self._updated: WeightsUpdated | None = None
        self._quiet_since = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Receive an event."""
        match event:
            case RunStarted():
                self._started, self._pace = event, Pace(event)
                for line in opening_lines(event):
                    self._say(line)
            case Noted():
                self._say(f"note: {event.text}")
            case StepLogged():
                self._latest = event
                if time.monotonic() - self._quiet_since > QUIET_SECONDS:
                    self._say(f"{self._position(event)}  {self._speed(event)}")
            case WeightsUpdated():
                self._updated = event
            case TradeoffsMoved():
                self._say(round_line(event))
            case Evaluated():
                assert self._started is not None
                accuracies = " ".join(f"{a:.2f}" for a in event.top1_pct_K)
                line = f"epoch {event.epoch}/{self._started.epochs}  val % {accuracies}"
                if self._latest is not None:
                    latest = self._latest
                    line += f"  loss {latest.loss:.3f}  lr {latest.lr:.3g}  {self._speed(latest)}"
                if self._updated is not None:
                    line += f"  weights' objective {self._updated.val_loss:.3f}"
                self._say(line)
            case RunEnded():
                if self._latest is not None and self._latest.weight_updates_left_out:
                    self._say(left_out(self._latest))
                self._say(f"{event.status} at step {event.step} after {duration(event.seconds)}")

    def _say(self, line: str) -> None:
        self._write(visible(line))
        self._quiet_since = time.monotonic()

    def _position(self, event: StepLogged) -> str:
        assert self._started is not None
        return f"step {event.step}/{self._started.total_steps}  loss {event.loss:.3f}"

    def _speed(self, event: StepLogged) -> str:
        return f"{event.images_per_s:,.0f} images/s  {self._pace.left(event.step)} left"


class LiveProgress:
    """A view that updates in place: position, pace, accuracy per exit, weights at a glance.

    Use as a context manager around the run.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._started: RunStarted | None = None
        self._logged: StepLogged | None = None
        self._evaluated: Evaluated | None = None
        self._updated: WeightsUpdated | None = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()
        if self._started is not None and self._logged is not None:
            self._console.print(self._exit_table())

    def __call__(self, event: Event) -> None:
        """Receive an event."""
        match event:
            case RunStarted():
                self._started, self._pace = event, Pace(event)
                for line in opening_lines(event):
                    self._console.print(line, highlight=False)
            case Noted():
                self._console.print(visible(f"note: {event.text}"), highlight=False)
            case StepLogged():
                self._logged = event
            case WeightsUpdated():
                self._updated = event
            case TradeoffsMoved():
                self._console.print(round_line(event), highlight=False)
            case Evaluated():
                self._evaluated = event
            case CheckpointSaved():
                return
            case RunEnded():
                if self._logged is not None and self._logged.weight_updates_left_out:
                    self._console.print(left_out(self._logged), highlight=False)
                self._console.print(
                    f"{event.status} at step {event.step} after {duration(event.seconds)}",
                    highlight=False,
                )
        if self._started is not None and self._logged is not None:
            shown: list[RenderableType] = [self._headline(), self._exit_table()]
            if self._updated is not None:
                shown.insert(1, Text(update_line(self._started.terms, self._updated)))
            self._live.update(Group(*shown))

    def _headline(self) -> Table:
        started, logged = self._started, self._logged
        assert started is not None
        assert logged is not None
        grid = Table.grid(padding=(0, 2))
        grid.add_row(
            ProgressBar(total=started.total_steps, completed=logged.step, width=24),
            f"epoch {logged.epoch}/{started.epochs}",
            f"step {logged.step:,}/{started.total_steps:,}",
            f"{logged.images_per_s:,.0f} images/s",
            f"{self._pace.left(logged.step)} left",
            f"loss {logged.loss:.3f}",
            f"lr {logged.lr:.3g}",
        )
        return grid

    def _exit_table(self) -> Table:
        started, logged = self._started, self._logged
        assert started is not None
        assert logged is not None
        # a column for the labels, for each teacher, and for each further kind of term
        titles = list(dict.fromkeys(sorted(map(_column, started.terms))))
        weights: dict[tuple[int | None, tuple[int, int, str]], list[float]] = {}
        for term, weight in zip(started.terms, logged.weights_T, strict=True):
            weights.setdefault((term.student, _column(term)), []).append(weight)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("exit", "M MACs", "train %", "val %", *(title for *_, title in titles)):
            table.add_column(title, justify="right")
        for k in range(started.num_exits):
            evaluated = f"{self._evaluated.top1_pct_K[k]:.2f}" if self._evaluated else "–"
            table.add_row(
                str(k + 1),
                f"{started.macs_K[k] / 1e6:.1f}",
                f"{logged.train_top1_pct_K[k]:.2f}",
                evaluated,
                *(_shade(weights.get((k + 1, title), ())) for title in titles),
            )
        if any(term.student is None for term in started.terms):
            cells = (_shade(weights.get((None, title), ())) for title in titles)
            table.add_row("all", "", "", "", *cells)
        return table


def opening_lines(event: RunStarted) -> list[str]:
    """What is about to happen, for people."""
    lines = [
        f"run {event.run}",
        f"{event.num_exits} exits, {event.parameters:,} parameters, "
        f"{event.macs_K[0] / 1e6:.1f} to {event.macs_K[-1] / 1e6:.1f} M MACs, "
        f"{len(event.terms)} loss terms, on {event.device}",
    ]
    if event.weight_updates:
        lines.append(f"updates of the loss weights: {event.weight_updates:,}")
    if event.first_step:  # of a new run the images are told before it is built
        images = ", ".join(f"{n:,} {role}" for role, n in event.samples.items() if n)
        lines.append(f"images: {images}")
        lines.append(f"going on after step {event.first_step} of {event.total_steps}")
    return lines + [f"note: {note}" for note in event.notes]


def update_line(terms: Sequence[Term], update: WeightsUpdated) -> str:
    """What the last update of the weights was made of: L_val, and its steepest derivatives."""
    slopes = dict(zip((term.name for term in terms), update.hypergradient_T, strict=True))
    steepest = sorted(slopes, key=lambda name: -abs(slopes[name]))[:STEEPEST]
    said = "  ".join(f"{name} {slopes[name]:+.2g}" for name in steepest)
    ending = "" if update.applied else "  (not applied)"
    return f"weights' objective {update.val_loss:.3f}  steepest derivatives {said}{ending}"


def round_line(event: TradeoffsMoved) -> str:
    """Where a round of continuations took the shared parameters of the weights."""
    moved = ", ".join(f"{n} {phi:+.2f}" for n, phi in zip(event.names, event.phi_M, strict=True))
    return f"step {event.step}  weights: {moved}  ({duration(event.seconds)} of continuations)"


def left_out(event: StepLogged) -> str:
    """That updates of the weights were not applied, for people."""
    return (
        f"note: updates of the weights that were not applied: {event.weight_updates_left_out} "
        "(the derivative was not finite, or the step was skipped)"
    )


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    return str(timedelta(seconds=round(max(0.0, seconds))))


def _column(term: Term) -> tuple[int, int, str]:
    """Where a term's weight stands in the table, in an order of columns, and the column's title."""
    if term.kind == "supervision":
        return 0, 0, "ce"
    title = "kd" if term.kind == "distillation" else term.kind
    place = 1 if term.kind == "distillation" else 2
    return place, term.teacher or 0, title if term.teacher is None else f"{title} {term.teacher}→"


def _shade(weights: Sequence[float]) -> Text:
    """Weights, brighter the further above 1, dimmer the further below."""
    if not weights:
        return Text("·", style="dim")
    return Text(" ").join(
        Text(f"{w:.2f}", style="bold green" if w > 1.3 else "dim" if w < 0.5 else "")
        for w in weights
    )
