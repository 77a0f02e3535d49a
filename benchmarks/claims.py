"""What the records in results/ say about each claim: one table for ``make bench`` and docs.

A record holds what was measured and its target; here stand the words, and the reason of every
target that is missed, found by profiling (docs/log.md tells how).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, NamedTuple

from harness import RESULTS, show, write_record

Record = Mapping[str, Any]


class Finding(NamedTuple):
    """A claim and what was measured."""

    claim: str
    measured: Mapping[str, float]  # median, min and max; all alike where bytes were counted
    target: float | None  # what the median should reach
    reason: str = ""  # why the target is missed, should it be
    at_least: bool = False  # whether the target is a lower bound, not an upper one
    digits: int = 2  # shown behind the point

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


class Claim(NamedTuple):
    """What a record says in each of its rows.

    Fields are looked up in the row, else in the record; ``a.b`` is field b of field a.
    """

    words: Callable[[Record], str]
    measured: str  # the field
    target: str | None = None  # the field; None: nothing was promised
    reason: str = "not profiled yet"
    at_least: bool = False
    digits: int = 2
    of: str = ""  # the field with the rows; none: the record itself
    where: Callable[[Record], bool] = bool  # which rows say it

    def findings(self, record: Record) -> Iterator[Finding]:
        """Each row's."""
        held = record[self.of] if self.of else record
        for row in map(record.__or__, held if isinstance(held, list) else [held]):
            if self.where(row):
                found = reduce(getitem, self.measured.split("."), row)
                if isinstance(found, float):  # counted, not timed
                    found = dict.fromkeys(("median", "min", "max"), found)
                target = None if self.target is None else row[self.target]
                shown = (self.reason, self.at_least, self.digits)
                yield Finding(self.words(row), found, target, *shown)


def _grown(kind: str, words: str) -> Claim:
    return Claim(
        lambda r: f"{words}, {r['axis']} {r['points'][0]['value']} to {r['points'][-1]['value']}: "
        "growth over that of the multiply-accumulates",
        f"growth.{kind}.over_work", "target_over_work", of="rows",
    )  # fmt: skip


CLAIMS: dict[str, tuple[Claim, ...]] = {
    "step_public": (
        Claim(
            lambda r: "training step over MSDNet's public loop, {net}, {batch} images, {arm}: "
            "speed".format_map(r),
            "speedup", "target", at_least=True, of="rows",
            reason="three fifths of a step are oneDNN's convolutions",
        ),
    ),
    "step_cpu": (
        Claim(
            lambda r: f"training step over a loop by hand, {r['net']} {r['precision']}, "
            f"{('in one process', 'each in its own process')[r['processes'] - 1]}: speed",
            "speedup", "target_speedup", at_least=True, of="rows",
            reason="80 % of a step is oneDNN's convolutions, which both run",
        ),
    ),
    "step_compiled": (
        Claim(
            lambda r: f"the same with `training.compile`, {r['net']} {r['precision']}: speed "
            f"(the first step waits {r['build_seconds']:.0f} s)",
            "speedup", "target_speedup", at_least=True, of="rows",
            reason="the compiler fuses what lies between convolutions; they themselves stay "
            "oneDNN's",
        ),
    ),
    "overhead": (
        Claim(
            lambda r: f"`hdkd` over `joint`, {r['exits']} exits, weights updated every "
            f"{'step' if r['interval'] == 1 else '{interval} steps'.format_map(r)}: time",
            "ratio", "target", of="rows",
            reason="an update is a gradient on validation images, and a forward-mode pass of 1.05 "
            "steps",
        ),
        Claim(
            lambda r: f"all terms and weights, {r['exits']} exits, {r['classes']} classes: share "
            "of a step",
            "share", "target", digits=3, of="terms",
        ),
    ),
    "thresholds": (
        Claim(
            lambda r: "39 operating points on {1} × {2} scores of {0} exits, one core: "
            "seconds".format(*r["scores"]),
            "fit_seconds",
        ),
    ),
    "memory": (
        Claim(
            lambda r: f"kept for updates of the weights, {r['net']}: over parameters and buffers",
            "keeps_over_parameters_and_buffers", "target_keeps", digits=3, of="rows",
        ),
        Claim(
            lambda r: f"peak memory of an update, {r['net']}: over that of a step",
            "peak_over_step", "target_peak", digits=3, of="rows",
        ),
    ),
    "growth": (
        _grown("plain", "a step's time"),
        _grown("update", "time of a step with an update of the weights"),
    ),
    "startup": (
        Claim(
            lambda r: f"`hdkd train {r['preset']}` ({r['images']}), cache warm, to the end of the "
            "first step: seconds",
            "seconds", "target_seconds", digits=1,
        ),
    ),
    "verbs": (
        Claim(
            lambda r: f"`hdkd {r['verb']} --scores FILE`, {r['samples']:,} images, 100 classes: "
            "processor seconds",
            "seconds", "target_seconds", of="rows",
        ),
        Claim(
            lambda r: f"`hdkd {r['verb']} --scores FILE`: peak memory in MB",
            "megabytes", "target_megabytes", digits=0, of="rows",
        ),
    ),
    "pipeline": (
        Claim(
            lambda r: f"JPEGs read over torchvision's loader, {r['transform']} transforms, "
            f"{r['workers']} workers: speed",
            "speed", "target_speed", at_least=True, of="rows",
        ),
        Claim(
            lambda r: f"JPEGs read, {r['transform']} transforms, {r['workers']} workers: images/s "
            "and worker",
            "images_per_s_and_worker", digits=0, of="rows", where=lambda r: r["workers"] > 0,
        ),
        Claim(
            lambda r: f"waiting for images, imagenet-msdnet5-step4, {r['workers']} worker: share "
            "of a step",
            "waiting_share", "target_waiting", digits=3, of="waiting",
        ),
    ),
}  # fmt: skip
"""Record → what it says, in the order of the table."""


def records(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """The records there are of those in ``CLAIMS``."""
    paths = {name: folder / f"{name}.json" for name in CLAIMS}
    return {n: json.loads(path.read_text()) for n, path in paths.items() if path.exists()}


def findings(found: Mapping[str, Record]) -> list[Finding]:
    """All rows of the table."""
    return [
        finding
        for name, record in found.items()
        for claim in CLAIMS[name]
        for finding in claim.findings(record)
    ]


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
    print(f"{table(findings({name: facts}))}\nwritten: {path}")
