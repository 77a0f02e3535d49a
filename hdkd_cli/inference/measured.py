"""A policy's points in seconds: what simulation says of them, timed on some of the images.

P operating points, N images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdkd_cli.evaluation.operating_point import everybody_stays
from hdkd_cli.evaluation.policy import ExitPolicy
from hdkd_cli.evaluation.simulate import choose_exits, threshold_array
from hdkd_cli.evaluation.table import ExitTable
from hdkd_cli.inference.early_exit import EarlyExit
from hdkd_cli.inference.exit_times import StageClock, device_of
from hdkd_cli.inference.timing import LEAST_ROUNDS, in_turn, seconds_of
from hdkd_cli.models.contract import MultiExitNet

SECONDS = 60.0
"""About how long all points take together."""
MOST_IMAGES = 1024
LEAST_IMAGES = 16

# Scores were computed in batches of another size, on a network whose BatchNorm was not folded.
_ROUNDING = 1e-3


@dataclass(frozen=True, eq=False)
class Measured:
    """What the points of a policy took.

    Attributes:
        seconds_per_image_P: Median over rounds.
        speedup_P: Against the full network on the same images.
        exit_PN: Exits taken.
    """

    seconds_per_image_P: NDArray[np.float64]
    speedup_P: NDArray[np.float64]
    exit_PN: NDArray[np.int64]


def images_in_time(net: MultiExitNet, points: int, batch_size: int) -> int:
    """How many images can be timed at so many points within `SECONDS`."""
    clock = StageClock(net)
    probe = torch.zeros(16, *net.input_shape, device=clock.device)
    clock(probe)
    an_image = seconds_of(lambda: clock(probe), clock.device) / len(probe)
    count = SECONDS / (an_image * (points + 1) * (LEAST_ROUNDS + 1))
    return int(max(LEAST_IMAGES, min(count, MOST_IMAGES, 4 * batch_size)))


def measure_points(
    net: MultiExitNet, policy: ExitPolicy, images_NCHW: Tensor, batch_size: int
) -> Measured:
    """Time every point of ``policy``, and the full network, in turn.

    Args:
        net: The network, ready.
        policy: The points.
        images_NCHW: On the device of the network.
        batch_size: Images that enter together.
    """
    batches = torch.split(images_NCHW, batch_size)
    stays = EarlyExit(net, policy, everybody_stays(policy))
    points = [EarlyExit(net, policy, point) for point in policy.points]
    exits: dict[int, list[NDArray[np.int64]]] = {}

    def arm(p: int, early: EarlyExit) -> Callable[[], object]:
        def run() -> None:
            exits[p] = [early(batch).exit_B for batch in batches]

        return run

    arms: dict[str, Callable[[], object]] = {str(p): arm(p, e) for p, e in enumerate(points)}
    arms["full"] = lambda: [stays(batch) for batch in batches]
    seconds = in_turn(arms, device_of(net), seconds=SECONDS, most_rounds=LEAST_ROUNDS)
    median_P = np.array([np.median(seconds[str(p)]) for p in range(len(points))])
    return Measured(
        seconds_per_image_P=median_P / len(images_NCHW),
        speedup_P=float(np.median(seconds["full"])) / median_P,
        exit_PN=np.stack([np.concatenate(exits[p]) for p in range(len(points))]),
    )


def unlike_simulation(
    measured: Measured, policy: ExitPolicy, table: ExitTable, samples: Sequence[int]
) -> int:
    """How many exits differ from those simulated, where rounding cannot be the reason.

    Args:
        measured: What happened.
        policy: The points.
        table: What simulation reads.
        samples: Which of its samples were timed.
    """
    confidence_KN = table.confidence_KN[:, list(samples)]
    thresholds_PK = threshold_array(policy.points)
    first_PN = choose_exits(confidence_KN + np.float32(_ROUNDING), thresholds_PK)
    last_PN = choose_exits(confidence_KN - np.float32(_ROUNDING), thresholds_PK)
    return int(((measured.exit_PN < first_PN) | (measured.exit_PN > last_PN)).sum())
