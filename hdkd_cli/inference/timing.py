"""Seconds of what runs on a device, measured in turn so that a slow moment hits all alike.

R rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

Name = TypeVar("Name", bound=str)

LEAST_ROUNDS = 3


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Seconds that ``run`` takes, the device's work included."""
    synchronise(device)
    began = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - began


def in_turn(
    arms: Mapping[Name, Callable[[], object]],
    device: torch.device,
    *,
    seconds: float,
    most_rounds: int = 200,
) -> dict[Name, NDArray[np.float64]]:
    """Seconds (R,) of every arm, after one round that does not count.

    Args:
        arms: What to run, by name.
        device: Where it runs.
        seconds: No further round begins that would end later than this, but for the first three.
        most_rounds: How many rounds are enough.
    """
    began = time.perf_counter()
    for run in arms.values():
        seconds_of(run, device)
    taken: dict[Name, list[float]] = {name: [] for name in arms}
    for rounds in range(most_rounds):
        a_round = sum(sum(times) for times in taken.values()) / max(1, rounds)
        if rounds >= LEAST_ROUNDS and time.perf_counter() - began + a_round > seconds:
            break
        for name, run in arms.items():
            taken[name].append(seconds_of(run, device))
    return {name: np.array(times) for name, times in taken.items()}
