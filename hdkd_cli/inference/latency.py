"""What a policy saves in time, against the full network.

Shapes: K exits, B samples of a batch, R rounds, N images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from hdkd_cli.choices import RuntimeName
from hdkd_cli.evaluation.operating_point import everybody_stays, last_exit
from hdkd_cli.evaluation.policy import ExitPolicy, OperatingPoint
from hdkd_cli.inference.early_exit import EarlyExit, Walk
from hdkd_cli.inference.exit_times import StageClock, device_of, noise
from hdkd_cli.inference.runtime import Runtimes
from hdkd_cli.inference.stream import Regrouped
from hdkd_cli.inference.timing import LEAST_ROUNDS, in_turn, seconds_of
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.models.cost import ExitCosts
from hdkd_cli.records.profile import PolicyProfile, Speedup

Floats = NDArray[np.float64]

# How a command's time is shared out: exits one image at a time and in batches, the same for policy.
SHARES = {"exits_one": 0.1, "exits": 0.15, "policy": 0.5, "policy_one": 0.25}
_MOST_BATCHES = 4
_MOST_SINGLES = 256


def images_needed(seconds_per_image: float, batch_size: int, seconds: float, runtimes: int) -> int:
    """How many images `profile_policy` has time for: whole batches, at least one."""
    arms = 5 * runtimes
    a_batch = arms * (LEAST_ROUNDS + 1) * batch_size * seconds_per_image
    return batch_size * int(min(_MOST_BATCHES, max(1, seconds * SHARES["policy"] / a_batch)))


def profile_policy(
    runtimes: Runtimes,
    costs: ExitCosts,
    policy: ExitPolicy,
    point: OperatingPoint,
    images_NCHW: Tensor,
    *,
    batch_size: int,
    seconds: float,
) -> PolicyProfile:
    """Early exit against the full network, on the same images in turn.

    Each is timed in every runtime and counts in its fastest; the full network runs no head that its
    answers do not need.

    Args:
        runtimes: The network.
        costs: Its costs.
        policy: When to leave.
        point: Which of its points.
        images_NCHW: Real images, on the device.
        batch_size: Of the throughput.
        seconds: Time of the whole command; a share of it is used.
    """
    nets = runtimes.all()
    bodies_K, heads_K = _macs_of_parts(runtimes.trained, costs)
    alone = last_exit(costs.macs_K)
    compared = partial(_compared, nets, (bodies_K, heads_K), policy, point, alone)
    whole, share_K = compared(images_NCHW, batch_size, seconds * SHARES["policy"])
    singles = _singles(nets, images_NCHW[:1], seconds * SHARES["policy_one"])
    one, _ = compared(images_NCHW[:singles], 1, seconds * SHARES["policy_one"])
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


def _singles(nets: Mapping[RuntimeName, MultiExitNet], image_1CHW: Tensor, seconds: float) -> int:
    """How many images there is time for one by one."""
    an_image = 0.0
    for net in nets.values():
        clock = StageClock(net)
        clock(image_1CHW)
        an_image += seconds_of(partial(clock, image_1CHW), clock.device)
    return int(min(_MOST_SINGLES, max(8, seconds / (3 * (LEAST_ROUNDS + 1) * an_image))))


def _compared(
    nets: Mapping[RuntimeName, MultiExitNet],
    macs_of_parts: tuple[Floats, Floats],
    policy: ExitPolicy,
    point: OperatingPoint,
    alone: ExitPolicy,
    images_NCHW: Tensor,
    batch_size: int,
    seconds: float,
) -> tuple[Speedup, Floats]:
    """What was measured at one batch size, what theory says of the same images, and the share of
    them that leaves at each exit."""
    batches = torch.split(images_NCHW, batch_size)
    stays = everybody_stays(policy)
    exits: list[NDArray[np.int64]] = []
    arms: dict[str, Callable[[], object]] = {}
    clocks = {name: StageClock(net) for name, net in nets.items()}

    def on_all(run: Callable[[Tensor], object]) -> Callable[[], object]:
        return lambda: [run(batch) for batch in batches]

    def leaving(early: EarlyExit) -> Callable[[], object]:
        def run() -> None:
            exits[:] = [early(batch).exit_B for batch in batches]

        return run

    def regrouping(net: MultiExitNet) -> Callable[[], object]:
        def run() -> None:
            stream = Regrouped(net, policy, point, batch_size=batch_size)
            for batch in batches:
                stream.feed(batch)
            stream.flush()

        return run

    for name, net in nets.items():
        arms[f"full {name}"] = on_all(EarlyExit(net, policy, stays))
        arms[f"alone {name}"] = on_all(EarlyExit(net, alone, everybody_stays(alone)))
        arms[f"early {name}"] = leaving(EarlyExit(net, policy, point))
        arms[f"stages {name}"] = on_all(clocks[name])
        if batch_size > 1:
            arms[f"regrouped {name}"] = regrouping(net)
    device = device_of(next(iter(nets.values())))
    taken = in_turn(arms, device, seconds=seconds)

    def fastest(what: str) -> tuple[float, RuntimeName]:
        return min((float(np.median(taken[f"{what} {name}"])), name) for name in nets)

    (full, full_name), (early, name) = fastest("full"), fastest("early")
    last, last_name = fastest("alone")
    regrouped = fastest("regrouped")[0] if batch_size > 1 else None
    exit_N = np.concatenate(exits)
    share_K = np.bincount(exit_N, minlength=policy.num_exits) / len(exit_N)
    heads = Walk(nets[name], policy, point).heads
    heads_full = Walk(nets[name], policy, stays).heads

    def stages(name: RuntimeName) -> tuple[Floats, Floats]:
        seconds_K2: Floats = np.median(np.array(clocks[name].seconds[len(batches) :]), axis=0)
        return seconds_K2[:, 0], seconds_K2[:, 1]

    def speedup(
        whole: tuple[Floats, Floats], parts: tuple[Floats, Floats], needed: Collection[int]
    ) -> float:
        return float(_to_exits(*whole, needed)[-1] / (share_K @ _to_exits(*parts, heads)))

    by_macs = speedup(macs_of_parts, macs_of_parts, heads_full)
    over_last = speedup(macs_of_parts, macs_of_parts, {policy.num_exits - 1})
    by_stages = speedup(stages(full_name), stages(name), heads_full)
    realised = full / early
    found = Speedup(
        batch=batch_size,
        images_per_s=len(exit_N) / early,
        runtime=name,
        full_images_per_s=len(exit_N) / full,
        full_runtime=full_name,
        theoretical_speedup=by_macs,
        stage_time_speedup=by_stages,
        realised_speedup=realised,
        realised_over_theoretical=realised / by_macs,
        realised_over_stage_time=realised / by_stages,
        last_exit_images_per_s=len(exit_N) / last,
        last_exit_runtime=last_name,
        last_exit_theoretical_speedup=over_last,
        last_exit_realised_speedup=last / early,
        regrouped_images_per_s=regrouped and len(exit_N) / regrouped,
        regrouped_speedup=regrouped and full / regrouped,
    )
    return found, share_K


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
        state = net.start(noise(net, 1))
        for stage in net.stages:
            state = stage.body(state)
            with FlopCounterMode(display=False) as counter:
                stage.head(state)
            heads.append(counter.get_total_flops() / 2)
    heads_K = np.array(heads)
    return np.diff(costs.macs_K, prepend=0) - heads_K, heads_K
