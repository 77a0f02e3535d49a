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

import argparse
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from harness import in_turn, show, spread, write_record
from step_cpu import CPU, settings_for

from hdkd_cli.data import Batch, ImageData
from hdkd_cli.data.in_memory import MemoryImages
from hdkd_cli.data.sources.base import ArraySource
from hdkd_cli.data.splits import Split
from hdkd_cli.models.cost import measure_costs
from hdkd_cli.settings.schema import Settings
from hdkd_cli.training.state import TrainState
from hdkd_cli.training.step import new_totals, train_step

TARGET_OVER_WORK = 1.1
BASE = {"exits": 5, "classes": 100, "batch": 32}
"""Where the other two axes stay: the network of cifar100-small."""
AXES = {"exits": (3, 5, 7, 9, 11), "classes": (10, 100, 1000), "batch": (16, 64, 256)}
KINDS = ("plain", "update")
"""A step without and with an update of the weights."""


def fresh_state(
    settings: Settings, classes: int, device: torch.device = CPU
) -> tuple[TrainState, Batch]:
    """A training state, and a batch of random images for it; no image is ever read."""
    names = tuple(f"class {c}" for c in range(classes))
    nothing = ArraySource.from_parts(names, *[(torch.empty(0).numpy(), torch.empty(0))] * 2)
    none = Split("train", torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), str)
    images = MemoryImages(nothing, settings.data)
    data = ImageData(settings.data, names, {"train": none}, images)
    state = TrainState.build(settings, data, device)
    torch.manual_seed(0)
    size, side = settings.training.batch_size, settings.data.image_size
    images = torch.randn(size, 3, side, side, device=device)
    if state.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    return state, Batch(images, torch.randint(classes, (size,), device=device))


def val_part(state: TrainState, batch: Batch) -> Batch:
    """As many images of a batch as an update of the weights reads."""
    size = state.settings.val_batch_size
    return Batch(batch.images[:size], batch.labels[:size])


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
    x = [math.log2(v) for v in values]
    y = [math.log2(s) for s in seconds]
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    pairs = list(zip(x, y, strict=True))
    slope = sum((a - middle_x) * (b - middle_y) for a, b in pairs)
    return 2 ** (slope / sum((a - middle_x) ** 2 for a in x))


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
    """Measure, print a table, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--axis", choices=AXES, action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("median (min to max)")
    print("axis      from   to  step     per doubling           over work             target")
    rows = []
    for axis in arguments.axis or AXES:
        row = measure(axis, AXES[axis], BASE, arguments.trials)
        rows.append(row)
        for kind, growth in row["growth"].items():
            print(
                f"{axis:8} {AXES[axis][0]:5} {AXES[axis][-1]:4}  {kind:8} "
                f"{show(growth['per_doubling']):22} {show(growth['over_work']):21} "
                f"{TARGET_OVER_WORK}",
                flush=True,
            )
    write_record(
        "growth",
        "how the time of a step grows, without and with an update of the weights",
        device=str(CPU),
        trials=arguments.trials,
        target_over_work=TARGET_OVER_WORK,
        rows=rows,
    )


if __name__ == "__main__":
    main()
