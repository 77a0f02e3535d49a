"""What a network costs in time: exit by exit, and under a policy against the full network.

Shapes: K exits, B samples of a batch, R rounds, N images, C channels, H W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from hdkd_cli.evaluation.policy import ExitPolicy, OperatingPoint
from hdkd_cli.inference.early_exit import EarlyExit, Walk
from hdkd_cli.inference.fold import memory_order
from hdkd_cli.inference.stream import Regrouped
from hdkd_cli.inference.timing import LEAST_ROUNDS, in_turn, seconds_of, synchronise
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.models.cost import ExitCosts
from hdkd_cli.records import Latency, PolicyProfile, ProfiledExit, Speedup

Floats = NDArray[np.float64]

# How a command's time is shared out: exits one image at a time and in batches, the same for policy.
SHARES = {"exits_one": 0.1, "exits": 0.15, "policy": 0.5, "policy_one": 0.25}
_MOST_BATCHES = 4
_MOST_SINGLES = 256


def device_of(net: MultiExitNet) -> torch.device:
    """Where a network is."""
    return next(net.parameters()).device


def everybody_stays(policy: ExitPolicy) -> OperatingPoint:
    """The point at which all samples go to the last exit: what early exit is compared with.

    It gives the full network's answers, and runs no head that they do not need.
    """
    return policy.points[0].model_copy(update={"thresholds": (None,) * (policy.num_exits - 1)})


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
    clock, probe = StageClock(net), _noise(net, min(16, batch_size))
    clock(probe)
    an_image = seconds_of(lambda: clock(probe), clock.device) / len(probe)
    while batch_size > 1 and batch_size * an_image * (LEAST_ROUNDS + 1) > seconds:
        batch_size //= 2
    return batch_size


def profile_exits(
    net: MultiExitNet, costs: ExitCosts, *, batch_size: int, seconds: float
) -> tuple[ProfiledExit, ...]:
    """Size, cost and measured time of every exit, all earlier stages and heads included.

    Args:
        net: The network, ready.
        costs: Its costs.
        batch_size: Of the throughput.
        seconds: Time of the whole command; a share of it is used.
    """
    one_RK = _seconds_to_exits(net, 1, seconds * SHARES["exits_one"])
    many_RK = _seconds_to_exits(net, batch_size, seconds * SHARES["exits"])
    return tuple(
        ProfiledExit(
            exit=k + 1,
            params=costs.params_K[k],
            macs=costs.macs_K[k],
            macs_eager=costs.macs_eager_K[k],
            ops=costs.ops_K[k],
            latency_ms=_latency(one_RK[:, k], 1),
            batch_latency_ms=_latency(many_RK[:, k], batch_size),
            throughput_images_per_s=batch_size / float(np.median(many_RK[:, k])),
        )
        for k in range(net.num_exits)
    )


def _seconds_to_exits(net: MultiExitNet, batch_size: int, seconds: float) -> Floats:
    """(R, K) seconds from the images to each exit's logits."""
    clock, images = StageClock(net), _noise(net, batch_size)
    in_turn({"stages": lambda: clock(images)}, clock.device, seconds=seconds)
    parts_RK2: Floats = np.array(clock.seconds[1:])  # the first was the warm-up
    return parts_RK2.reshape(len(parts_RK2), -1).cumsum(axis=1)[:, 1::2]


def _noise(net: MultiExitNet, batch_size: int) -> Tensor:
    like = next(net.parameters())
    images = torch.randn(batch_size, *net.input_shape, device=like.device, dtype=like.dtype)
    return images.contiguous(memory_format=memory_order(like.device))


def _latency(seconds_R: Floats, batch_size: int) -> Latency:
    median, p95 = np.percentile(1000 * seconds_R, [50, 95]).tolist()
    return Latency(batch=batch_size, median=median, p95=p95)


def images_needed(seconds_per_image: float, batch_size: int, seconds: float) -> int:
    """How many images `profile_policy` has time for: whole batches, at least one."""
    a_batch = 4 * (LEAST_ROUNDS + 1) * batch_size * seconds_per_image  # four arms
    return batch_size * int(min(_MOST_BATCHES, max(1, seconds * SHARES["policy"] / a_batch)))


def profile_policy(
    net: MultiExitNet,
    costs: ExitCosts,
    policy: ExitPolicy,
    point: OperatingPoint,
    images_NCHW: Tensor,
    *,
    batch_size: int,
    seconds: float,
) -> PolicyProfile:
    """Early exit against the full network, on the same images in turn.

    Both run on the same network, `ready`; the full one runs no head that its answers do not need.

    Args:
        net: The network, ready.
        costs: Its costs.
        policy: When to leave.
        point: Which of its points.
        images_NCHW: Real images, on the device.
        batch_size: Of the throughput.
        seconds: Time of the whole command; a share of it is used.
    """
    exited = [
        EarlyExit(net, policy, point)(batch) for batch in torch.split(images_NCHW, batch_size)
    ]
    exit_N = torch.cat([e.exit_B for e in exited]).cpu()
    share_K = (exit_N.bincount(minlength=net.num_exits) / len(exit_N)).double().numpy()
    whole = _compared(
        net, costs, policy, point, images_NCHW, batch_size, seconds * SHARES["policy"]
    )
    singles = images_NCHW[: _singles(net, images_NCHW[:1], seconds * SHARES["policy_one"])]
    one = _compared(net, costs, policy, point, singles, 1, seconds * SHARES["policy_one"])
    return PolicyProfile(
        kind=policy.kind,
        target_macs=point.target_macs,
        thresholds=point.thresholds,
        macs=float(share_K @ np.array(costs.macs_K)),
        exit_share=tuple(share_K.tolist()),
        images=len(images_NCHW),
        one_by_one=one,
        **whole.model_dump(),
    )


def _singles(net: MultiExitNet, image_1CHW: Tensor, seconds: float) -> int:
    """How many images there is time for one by one."""
    clock = StageClock(net)
    clock(image_1CHW)
    an_image = seconds_of(lambda: clock(image_1CHW), clock.device)
    return int(min(_MOST_SINGLES, max(8, seconds / (3 * (LEAST_ROUNDS + 1) * an_image))))


def _compared(
    net: MultiExitNet,
    costs: ExitCosts,
    policy: ExitPolicy,
    point: OperatingPoint,
    images_NCHW: Tensor,
    batch_size: int,
    seconds: float,
) -> Speedup:
    """What was measured at one batch size, and what theory says of the same images."""
    batches = torch.split(images_NCHW, batch_size)
    stays = everybody_stays(policy)
    full, early = EarlyExit(net, policy, stays), EarlyExit(net, policy, point)
    clock = StageClock(net)
    exits: list[Tensor] = []

    def run_early() -> None:
        exits[:] = [early(batch).exit_B for batch in batches]

    def run_regrouped() -> None:
        stream = Regrouped(net, policy, point, batch_size=batch_size)
        for batch in batches:
            stream.feed(batch)
        stream.flush()

    def run_stages() -> None:
        for batch in batches:
            clock(batch)

    arms: dict[str, Callable[[], object]] = {
        "full": lambda: [full(batch) for batch in batches],
        "early": run_early,
        "stages": run_stages,
    }
    if batch_size > 1:
        arms["regrouped"] = run_regrouped
    median = {
        name: float(np.median(times_R))
        for name, times_R in in_turn(arms, clock.device, seconds=seconds).items()
    }

    exit_N = torch.cat(exits).cpu()
    share_K = exit_N.bincount(minlength=net.num_exits).double().numpy() / len(exit_N)
    stage_K2: Floats = np.median(np.array(clock.seconds[len(batches) :]), axis=0)
    bodies_K, heads_K = _macs_of_parts(net, costs)
    heads, heads_full = Walk(net, policy, point).heads, Walk(net, policy, stays).heads

    def speedup(body_K: Floats, head_K: Floats) -> float:
        whole = _to_exits(body_K, head_K, heads_full)[-1]
        return float(whole / (share_K @ _to_exits(body_K, head_K, heads)))

    by_macs, by_stages = speedup(bodies_K, heads_K), speedup(stage_K2[:, 0], stage_K2[:, 1])
    realised = median["full"] / median["early"]
    regrouped = median.get("regrouped")
    return Speedup(
        batch=batch_size,
        images_per_s=len(exit_N) / median["early"],
        full_images_per_s=len(exit_N) / median["full"],
        theoretical_speedup=by_macs,
        stage_time_speedup=by_stages,
        realised_speedup=realised,
        realised_over_theoretical=realised / by_macs,
        realised_over_stage_time=realised / by_stages,
        regrouped_images_per_s=regrouped and len(exit_N) / regrouped,
        regrouped_speedup=regrouped and median["full"] / regrouped,
    )


def _to_exits(body_K: Floats, head_K: Floats, heads: Collection[int]) -> Floats:
    """(K,) cost of getting to each exit if only some heads run."""
    runs_K = np.isin(np.arange(len(head_K)), list(heads))
    return (body_K + head_K * runs_K).cumsum()


def _macs_of_parts(net: MultiExitNet, costs: ExitCosts) -> tuple[Floats, Floats]:
    """(K,) multiply-accumulates of each stage's body and head, for one image.

    Costs charge an exit with all heads before it; what really runs may be less.
    """
    heads = []
    with torch.inference_mode():
        state = net.start(_noise(net, 1))
        for stage in net.stages:
            state = stage.body(state)
            with FlopCounterMode(display=False) as counter:
                stage.head(state)
            heads.append(counter.get_total_flops() / 2)
    heads_K = np.array(heads)
    return np.diff(costs.macs_K, prepend=0) - heads_K, heads_K
