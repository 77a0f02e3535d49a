"""How the time of a step grows with the exits, the classes and the batch.

    python benchmarks/growth.py [--threads 1 --trials 5 --axis exits ...]

One step of ``hdkd`` with fixed random images, without and with an update of the weights. All points
of an axis take their turns in one process. ``per doubling`` is what the time is multiplied by when
the axis doubles (least squares of the logarithms, in each round); ``over work`` is the growth of
the time from the first point to the last, over that of batch × multiply-accumulates. It stays
about 1 where nothing but the network's own arithmetic grows. Writes benchmarks/results/growth.json.

K exits, B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from claims import finish
from fixtures import fresh_state, settings_for, val_part
from harness import CPU, in_turn, options, spread

from hdkd_cli.data import Batch
from hdkd_cli.models.cost import measure_costs
from hdkd_cli.training.state import TrainState
from hdkd_cli.training.step import new_totals, train_step

TARGET_OVER_WORK = 1.1
BASE = {"exits": 5, "classes": 100, "batch": 32}
"""Where the other two axes stay: the network of cifar100-small."""
AXES = {"exits": (3, 5, 7, 9, 11), "classes": (10, 100, 1000), "batch": (16, 64, 256)}
KINDS = ("plain", "update")
"""A step without and with an update of the weights."""


def one_step(state: TrainState, batch: Batch, *, update: bool) -> Callable[[], None]:
    """A function that takes one step, with an update of the weights if asked for, and waits."""
    totals = new_totals(state)
    harmonizer, val = state.harmonizer, val_part(state, batch)
    assert harmonizer is not None

    def step() -> None:
        if update:
            harmonizer.before_step(state.net)
        moved = train_step(state, [batch], totals)
        if update:
            harmonizer.after_step(state.net, [batch], val, step_ok=moved)
        totals.loss.item()

    return step


def per_doubling(values: Sequence[float], seconds: Sequence[float]) -> float:
    """2^b of the line a + b·log2(value) closest to log2(seconds)."""
    return 2 ** float(np.polyfit(np.log2(values), np.log2(seconds), 1)[0])


def measure(axis: str, values: Sequence[int], base: Mapping[str, int], trials: int) -> dict:
    """One axis: every point, and how time grows along it."""
    arms, work = {}, []
    for value in values:
        at = {**base, axis: value}
        model = {"name": "msdnet", "exits": at["exits"], "base": 1, "step": 1}
        settings = settings_for(model, at["batch"], "hdkd")
        for kind in KINDS:
            state, batch = fresh_state(settings, at["classes"])
            arms[kind, value] = one_step(state, batch, update=kind == "update")
        work.append(at["batch"] * measure_costs(state.net).macs_K[-1])
    seconds = in_turn(arms, trials=trials, warmup=1)
    growth = {}
    for kind in KINDS:
        rounds = list(zip(*(seconds[kind, value] for value in values), strict=True))
        growth[kind] = {
            "per_doubling": spread([per_doubling(values, r) for r in rounds]),
            "over_work": spread([r[-1] / r[0] / (work[-1] / work[0]) for r in rounds]),
        }
    return {
        "axis": axis,
        "fixed": {name: at for name, at in base.items() if name != axis},
        "points": [
            {"value": value, "work_macs": macs}
            | {f"{kind}_seconds": spread(seconds[kind, value]) for kind in KINDS}
            for value, macs in zip(values, work, strict=True)
        ],
        "growth": growth,
    }


def main() -> None:
    """Measure, write the record, print what it says."""
    given = options(__doc__, threads=1, trials=5, axis=AXES)
    finish(
        "growth",
        "how the time of a step grows, without and with an update of the weights",
        device=str(CPU),
        trials=given.trials,
        target_over_work=TARGET_OVER_WORK,
        rows=[measure(axis, AXES[axis], BASE, given.trials) for axis in given.axis],
    )


if __name__ == "__main__":
    main()
