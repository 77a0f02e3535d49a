"""What a step and an update of the weights need in memory, counted byte by byte.

    python benchmarks/memory.py [--device cuda --batch 64 --net cifar100-small ...]

``keeps`` is what stays allocated between steps for the sake of updates: one copy of parameters and
buffers, made before the first one. The peaks are the highest level during a plain step and during
the update behind it (validation gradient and forward-mode pass), above what is allocated all the
time; a stored graph of the unrolled step would double the second. On a CPU every allocation of
torch's allocator is counted (the scratch of oneDNN's kernels is not), on CUDA its own counters
tell. Bytes do not depend on how busy the machine is. Writes benchmarks/results/memory.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from claims import finish
from fixtures import fresh_state, val_part
from harness import options
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from hdkd_cli.devices import resolve_device
from hdkd_cli.settings.layers import resolve
from hdkd_cli.training.step import new_totals, train_step

NETS = {
    "cifar100-small": (100, 64),
    "cifar100-msdnet7": (100, 64),
    "imagenet-msdnet5-step4": (1000, 8),
}
"""Preset → classes, and images per step."""
TARGET_PEAK = 1.1
TARGET_KEEPS = 1.01


class Bytes(NamedTuple):
    """What a call did to the memory, relative to its beginning."""

    kept: int
    peak: int


def counted(device: torch.device, call: Callable[[], object]) -> Bytes:
    """Call it and count what it allocates and frees on ``device``."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        after = torch.cuda.memory_allocated(device)
        return Bytes(after - before, torch.cuda.max_memory_allocated(device) - before)
    activities = [ProfilerActivity.CPU]
    with profile(activities=activities, profile_memory=True, acc_events=True) as profiler:
        call()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    return Bytes(level, peak)


def total(tensors: Iterable[Tensor]) -> int:
    """Bytes of all of them."""
    return sum(t.nbytes for t in tensors)


def measure(
    preset: str,
    classes: int,
    batch_size: int,
    device: torch.device,
    assignments: Sequence[str] = (),
) -> dict[str, object]:
    """One network: bytes of its parameters, a step and an update."""
    size = [f"training.batch_size={batch_size}", "training.precision=fp32"]
    settings = resolve(
        preset,
        environment={},
        assignments=[*size, *assignments],
        flags={"--data-dir": Path()},
    ).settings
    # a state without images takes the kind that is held in memory
    data = settings.data.model_copy(update={"augment": "none"})
    state, batch = fresh_state(settings.model_copy(update={"data": data}), classes, device)
    totals, harmonizer, val = new_totals(state), state.harmonizer, val_part(state, batch)
    assert harmonizer is not None

    def step() -> None:
        train_step(state, [batch], totals)

    step()  # gradients exist from now on
    plain = counted(device, step)
    keeps = counted(device, lambda: harmonizer.before_step(state.net))
    step()
    update = counted(device, lambda: harmonizer.after_step(state.net, [batch], val))
    parameters = total(state.net.parameters())
    buffers = total(state.net.buffers())
    return {
        "net": preset,
        "batch": batch_size,
        "image_size": settings.data.image_size,
        "bytes": {
            "parameters": parameters,
            "buffers": buffers,
            "kept_for_updates": keeps.kept,
            "kept_by_an_update": update.kept,
            "peak_of_a_step": plain.peak,
            "peak_of_an_update": update.peak,
            "step_per_image": round(plain.peak / batch_size),
        },
        "keeps_over_parameters_and_buffers": keeps.kept / (parameters + buffers),
        "peak_over_step": update.peak / plain.peak,
    }


def main() -> None:
    """Count, write the record, print what it says."""
    given = options(__doc__, device="cpu", batch=int, net=NETS)
    device = resolve_device(given.device)
    finish(
        "memory",
        "bytes of a step and of an update of the weights, float32",
        device=device.type,
        target_keeps=TARGET_KEEPS,
        target_peak=TARGET_PEAK,
        rows=[
            measure(name, NETS[name][0], given.batch or NETS[name][1], device) for name in given.net
        ],
    )


if __name__ == "__main__":
    main()
