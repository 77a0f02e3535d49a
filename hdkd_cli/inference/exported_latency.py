"""How long an image takes in the exported programs, beside PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hdkd_cli.evaluation.operating_point import everybody_stays
from hdkd_cli.evaluation.policy import ExitPolicy
from hdkd_cli.inference.early_exit import EarlyExit
from hdkd_cli.inference.exported_network import Network
from hdkd_cli.inference.timing import in_turn
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.records.export import ExportLatency

IMAGES = 256  # to measure on
BATCH_SIZES = (1, 64)
SECONDS = 0.5  # for each number
MOST_BATCHES = 10_000


def measure_latency(
    exported: Network,
    net: MultiExitNet,
    policy: ExitPolicy,
    images_NCHW: Tensor,
    fp32: Network | None = None,
) -> tuple[ExportLatency, ...]:
    """Mean milliseconds per image, early exit and all exits, on this machine's processor.

    Args:
        exported: The programs, with as many threads as torch has.
        net: The network they were made of, `ready` on the CPU.
        policy: Its only point is that of the programs, or of ``fp32``.
        images_NCHW: Real images: how early they leave decides about the time.
        fp32: The same in fp32, if ``exported`` is of lower precision.

    Returns:
        A record for each batch size; ``.._full_ms`` leave at no exit but the last.
    """
    early, full = EarlyExit(net, policy), EarlyExit(net, policy, everybody_stays(policy))
    records = []
    for size in BATCH_SIZES:
        tensors = torch.split(images_NCHW, size)
        arrays = [tensor.contiguous().numpy() for tensor in tensors]
        arms: dict[str, tuple[Callable[[Any], object], Sequence[Any]]] = {
            "exported_ms": (exported.classify, arrays),
            "exported_full_ms": (_to_the_end(exported).classify, arrays),
            "pytorch_ms": (early, tensors),
            "pytorch_full_ms": (full, tensors),
        }
        if fp32 is not None:
            arms["fp32_ms"] = (fp32.classify, arrays)
            arms["fp32_full_ms"] = (_to_the_end(fp32).classify, arrays)
        means = _per_image_ms(arms)
        records.append(ExportLatency(batch=size, threads=torch.get_num_threads(), **means))
    return tuple(records)


def _to_the_end(exported: Network) -> Network:
    """The same programs, by which no image leaves before the last exit."""
    full = copy.copy(exported)
    full.thresholds_K = [np.float32(np.inf)] * len(exported.thresholds_K)
    return full


def _per_image_ms(
    arms: Mapping[str, tuple[Callable[[Any], object], Sequence[Any]]],
) -> dict[str, float]:
    """Means of programs on the same batches, a batch of one after a batch of the other.

    The mean: some images leave early and some do not, a median would show one kind.
    """
    sizes = [len(batch) for batch in next(iter(arms.values()))[1]]

    def arm(run: Callable[[Any], object], batches: Sequence[Any]) -> Callable[[], object]:
        turns = cycle(batches)
        return lambda: run(next(turns))

    seconds = in_turn(
        {name: arm(*parts) for name, parts in arms.items()},
        torch.device("cpu"),
        seconds=SECONDS * len(arms),
        most_rounds=MOST_BATCHES,
    )
    rounds = len(next(iter(seconds.values())))
    images = sum(islice(cycle(sizes), 1, 1 + rounds))  # the first batch did not count
    return {name: 1000 * float(times_R.sum()) / images for name, times_R in seconds.items()}
