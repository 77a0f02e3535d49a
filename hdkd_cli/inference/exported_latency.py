"""How long an image takes in the exported programs, beside PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import cycle
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hdkd_cli.evaluation.policy import ExitPolicy
from hdkd_cli.inference.early_exit import EarlyExit
from hdkd_cli.inference.latency import everybody_stays
from hdkd_cli.inference.runner import Network
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.records import ExportLatency

IMAGES = 256  # to measure on
BATCH_SIZES = (1, 64)
SECONDS = 0.5  # for each number


def measure_latency(
    exported: Network, net: MultiExitNet, policy: ExitPolicy, images_NCHW: Tensor
) -> tuple[ExportLatency, ...]:
    """Mean milliseconds an image, early exit and all exits, on this machine's processor.

    Args:
        exported: The programs, with as many threads as torch has.
        net: The network they were made of, `ready` on the CPU.
        policy: Its only point is that of the programs.
        images_NCHW: Real images: how early they leave decides about the time.

    Returns:
        A record for each batch size; ``.._full_ms`` leave at no exit but the last.
    """
    exported_full = copy.copy(exported)
    exported_full.thresholds_K = [np.float32(np.inf)] * len(exported.thresholds_K)
    early, full = EarlyExit(net, policy), EarlyExit(net, policy, everybody_stays(policy))
    records = []
    for size in BATCH_SIZES:
        tensors = torch.split(images_NCHW, size)
        arrays = [tensor.contiguous().numpy() for tensor in tensors]
        records.append(
            ExportLatency(
                batch=size,
                threads=torch.get_num_threads(),
                exported_ms=_per_image_ms(exported.classify, arrays),
                exported_full_ms=_per_image_ms(exported_full.classify, arrays),
                pytorch_ms=_per_image_ms(early, tensors),
                pytorch_full_ms=_per_image_ms(full, tensors),
            )
        )
    return tuple(records)


def _per_image_ms(run: Callable[[Any], object], batches: Sequence[Any]) -> float:
    """The mean: some images leave early and some do not, a median would show one kind."""
    run(batches[0])  # the first call prepares what later ones reuse
    images, start = 0, perf_counter()
    for batch in cycle(batches):
        run(batch)
        images += len(batch)
        elapsed = perf_counter() - start
        if elapsed > SECONDS:
            break
    return 1000 * elapsed / images
