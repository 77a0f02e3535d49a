"""How long it takes to leave at each exit, in the fastest runtime; and stage by stage.

Shapes: K exits, B samples of a batch, R rounds, H W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdkd_cli.choices import RuntimeName
from hdkd_cli.evaluation.policy import ExitPolicy, OperatingPoint
from hdkd_cli.inference.early_exit import EarlyExit
from hdkd_cli.inference.fold import memory_order
from hdkd_cli.inference.timing import LEAST_ROUNDS, in_turn, seconds_of, synchronise
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.models.cost import ExitCosts
from hdkd_cli.records.profile import Latency, ProfiledExit, RuntimeTrial

Floats = NDArray[np.float64]


def device_of(net: MultiExitNet) -> torch.device:
    """Where a network is: one in onnxruntime, which has no parameters, on the CPU."""
    parameter = next(net.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


class StageClock:
    """Runs all stages and heads, and remembers how long each took."""

    def __init__(self, net: MultiExitNet) -> None:
        self.net = net.eval()
        self.device = device_of(net)
        self.seconds: list[list[list[float]]] = []  # a run: K times (body, head)

    def __call__(self, images_BCHW: Tensor) -> None:
        """Run on a batch."""
        with torch.inference_mode():
            state = self.net.start(images_BCHW)
            taken = []
            at = self._now()
            for stage in self.net.stages:
                state = stage.body(state)
                between = self._now()
                stage.head(state)
                end = self._now()
                taken.append([between - at, end - between])
                at = end
        self.seconds.append(taken)

    def _now(self) -> float:
        synchronise(self.device)
        return time.perf_counter()


def fitting_batch(net: MultiExitNet, batch_size: int, seconds: float) -> int:
    """The batch size, halved until the least number of rounds takes no longer than ``seconds``."""
    clock, probe = StageClock(net), noise(net, min(16, batch_size))
    clock(probe)
    an_image = seconds_of(lambda: clock(probe), clock.device) / len(probe)
    while batch_size > 1 and batch_size * an_image * (LEAST_ROUNDS + 1) > seconds:
        batch_size //= 2
    return batch_size


class TimeToExits(NamedTuple):
    """How long it takes until the answers of a batch are there, in the fastest runtime.

    Attributes:
        runtime: Which that is, by the last exit.
        seconds_RK: Rounds by exits.
        tried: What the others took, too.
    """

    runtime: RuntimeName
    seconds_RK: Floats
    tried: tuple[RuntimeTrial, ...]


def time_to_exits(
    nets: Mapping[RuntimeName, MultiExitNet], policy: ExitPolicy, batch_size: int, seconds: float
) -> TimeToExits:
    """Time every exit in every runtime, in turn: all samples leave there, none before.

    All earlier heads run and their confidences are looked at, as when every exit is used.

    Args:
        nets: The network in each runtime.
        policy: How exits are read; its thresholds do not matter.
        batch_size: Samples of noise.
        seconds: About how long to measure.
    """
    arms: dict[str, Callable[[], object]] = {}
    for name, net in nets.items():
        images = noise(net, batch_size)
        for k in range(net.num_exits):
            early = EarlyExit(net, policy, _all_leave_at(k, policy))
            arms[f"{name} {k}"] = partial(early, images)
    device = device_of(next(iter(nets.values())))
    taken = in_turn(arms, device, seconds=seconds)
    seconds_RK = {
        name: np.stack([taken[f"{name} {k}"] for k in range(net.num_exits)], axis=1)
        for name, net in nets.items()
    }
    median = {name: float(np.median(times_RK[:, -1])) for name, times_RK in seconds_RK.items()}
    fastest = min(median, key=lambda name: median[name])
    tried = tuple(
        RuntimeTrial(batch=batch_size, runtime=name, median=1000 * median[name]) for name in nets
    )
    return TimeToExits(fastest, seconds_RK[fastest], tried)


def _all_leave_at(k: int, policy: ExitPolicy) -> OperatingPoint:
    """Earlier exits are asked, and no confidence reaches 2."""
    thresholds = (2.0,) * k + (0.0,) * (policy.num_exits - 1 - k)
    return policy.points[0].model_copy(update={"thresholds": thresholds})


def profile_exits(
    costs: ExitCosts, one: TimeToExits, many: TimeToExits
) -> tuple[ProfiledExit, ...]:
    """Size, cost and measured time of every exit, all earlier stages and heads included.

    Args:
        costs: What exits cost.
        one: One image at a time.
        many: In batches.
    """
    size = many.tried[0].batch
    return tuple(
        ProfiledExit(
            exit=k + 1,
            params=costs.params_K[k],
            macs=costs.macs_K[k],
            macs_eager=costs.macs_eager_K[k],
            ops=costs.ops_K[k],
            latency_ms=_latency(one, k),
            batch_latency_ms=_latency(many, k),
            throughput_images_per_s=size / float(np.median(many.seconds_RK[:, k])),
        )
        for k in range(len(costs.macs_K))
    )


def noise(net: MultiExitNet, batch_size: int) -> Tensor:
    """Images for a network, on its device."""
    device = device_of(net)
    images = torch.randn(batch_size, *net.input_shape, device=device)
    return images.contiguous(memory_format=memory_order(device))


def _latency(times: TimeToExits, k: int) -> Latency:
    median, p95 = np.percentile(1000 * times.seconds_RK[:, k], [50, 95]).tolist()
    return Latency(batch=times.tried[0].batch, median=median, p95=p95, runtime=times.runtime)
