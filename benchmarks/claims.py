"""What the records in results/ say about each claim: one table for ``make bench`` and docs.

A record holds what was measured and its target; here stand the words, and the reason of every
target that is missed, found by profiling (docs/log.md tells how).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import RESULTS, show, write_record

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """A claim and what was measured.

    Attributes:
        claim: In words.
        measured: Median, min and max; all alike where bytes were counted.
        target: What the median should reach; None: nothing was promised.
        reason: Why the target is missed, should it be.
        at_least: Whether the target is a lower bound, not an upper one.
        digits: Shown behind the point.
    """

    claim: str
    measured: Mapping[str, float]
    target: float | None
    reason: str = ""
    at_least: bool = False
    digits: int = 2

    @property
    def met(self) -> bool:
        """Whether the median reaches the target."""
        assert self.target is not None
        median = self.measured["median"]
        return median >= self.target if self.at_least else median <= self.target

    def cells(self) -> tuple[str, str, str, str]:
        """The row: claim, measured, target, verdict."""
        low, high = self.measured["min"], self.measured["max"]
        alike = low == high
        measured = f"{low:.{self.digits}f}" if alike else show(self.measured, self.digits)
        if self.target is None:
            return self.claim, measured, "", ""
        bound = f"{'at least' if self.at_least else 'at most'} {self.target:g}"
        verdict = "met" if self.met else f"missed: {self.reason or 'not profiled yet'}"
        return self.claim, measured, bound, verdict


CONVOLUTIONS = "80 % of a step is oneDNN's convolutions, which both run"
COMPILED = "the compiler fuses what lies between convolutions; they themselves stay oneDNN's"
UPDATE_COST = "an update is a gradient on validation images, and a forward-mode pass of 1.05 steps"


def _step_cpu(record: Record) -> Iterator[Finding]:
    for row in record["rows"]:
        where = "in one process" if row["processes"] == 1 else "each in its own process"
        yield Finding(
            f"training step over a loop by hand, {row['net']} {row['precision']}, {where}: speed",
            row["speedup"],
            record["target_speedup"],
            CONVOLUTIONS,
            at_least=True,
        )


def _step_compiled(record: Record) -> Iterator[Finding]:
    for row in record["rows"]:
        yield Finding(
            f"the same with `training.compile`, {row['net']} {row['precision']}: speed (the first "
            f"step waits {row['build_seconds']:.0f} s)",
            row["speedup"],
            record["target_speedup"],
            COMPILED,
            at_least=True,
        )


def _overhead(record: Record) -> Iterator[Finding]:
    for row in record["rows"]:
        every = "every step" if row["interval"] == 1 else f"every {row['interval']} steps"
        yield Finding(
            f"`hdkd` over `joint`, {row['exits']} exits, weights updated {every}: time",
            row["ratio"],
            row["target"],
            UPDATE_COST,
        )
    terms = record["terms"]
    yield Finding(
        f"all terms and weights, {terms['exits']} exits, {terms['classes']} classes: share of a "
        "step",
        terms["share"],
        terms["target"],
        digits=3,
    )


def _growth(record: Record) -> Iterator[Finding]:
    kinds = {"plain": "a step's time", "update": "time of a step with an update of the weights"}
    for row in record["rows"]:
        first, last = (row["points"][i]["value"] for i in (0, -1))
        for kind, words in kinds.items():
            yield Finding(
                f"{words}, {row['axis']} {first} to {last}: growth over that of the "
                "multiply-accumulates",
                row["growth"][kind]["over_work"],
                record["target_over_work"],
                "not profiled yet",
            )


def _memory(record: Record) -> Iterator[Finding]:
    for row in record["rows"]:
        yield Finding(
            f"kept for updates of the weights, {row['net']}: over parameters and buffers",
            _exact(row["keeps_over_parameters_and_buffers"]),
            record["target_keeps"],
            "not profiled yet",
            digits=3,
        )
        yield Finding(
            f"peak memory of an update, {row['net']}: over that of a step",
            _exact(row["peak_over_step"]),
            record["target_peak"],
            "not profiled yet",
            digits=3,
        )


def _startup(record: Record) -> Iterator[Finding]:
    yield Finding(
        f"`hdkd train {record['preset']}` ({record['images']}), cache warm, to the end of the "
        "first step: seconds",
        record["seconds"],
        record["target_seconds"],
        "not profiled yet",
        digits=1,
    )


def _pipeline(record: Record) -> Iterator[Finding]:
    for row in record["rows"]:
        yield Finding(
            f"JPEGs read over torchvision's loader, {row['transform']} transforms, "
            f"{row['workers']} workers: speed",
            row["speed"],
            record["target_speed"],
            at_least=True,
        )
    for row in record["rows"]:
        if row["workers"] > 0:
            yield Finding(
                f"JPEGs read, {row['transform']} transforms, {row['workers']} workers: images/s "
                "and worker",
                row["images_per_s_and_worker"],
                None,
                digits=0,
            )
    wait = record["waiting"]
    yield Finding(
        f"waiting for images, imagenet-msdnet5-step4, {wait['workers']} worker: share of a step",
        wait["waiting_share"],
        record["target_waiting"],
        "not profiled yet",
        digits=3,
    )


def _thresholds(record: Record) -> Iterator[Finding]:
    exits, samples, classes = record["scores"]
    yield Finding(
        f"39 operating points on {samples} × {classes} scores of {exits} exits, one core: seconds",
        record["fit_seconds"],
        None,
    )


def _exact(value: float) -> dict[str, float]:
    return {"median": value, "min": value, "max": value}


READERS: dict[str, Callable[[Record], Iterator[Finding]]] = {
    "step_cpu": _step_cpu,
    "step_compiled": _step_compiled,
    "overhead": _overhead,
    "thresholds": _thresholds,
    "memory": _memory,
    "growth": _growth,
    "startup": _startup,
    "pipeline": _pipeline,
}
"""Record → what it says, in the order of the table."""


def records(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """The records there are of those in ``READERS``."""
    paths = {name: folder / f"{name}.json" for name in READERS}
    return {n: json.loads(path.read_text()) for n, path in paths.items() if path.exists()}


def findings(found: Mapping[str, Record]) -> list[Finding]:
    """All rows of the table."""
    return [finding for name, record in found.items() for finding in READERS[name](record)]


def table(rows: Sequence[Finding]) -> str:
    """Claims in columns."""
    cells = [("claim", "measured: median (min to max)", "target", ""), *(r.cells() for r in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def finish(name: str, what: str, **facts: object) -> None:
    """Write a record and print what it says of its claims."""
    path = write_record(name, what, **facts)
    print(f"{table(list(READERS[name](facts)))}\nwritten: {path}")
