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

from hdkd_cli.inference.runner import Network
from hdkd_cli.models.contract import MultiExitNet

IMAGES = 256  # to measure on
BATCH_SIZES = (1, 64)
SECONDS = 0.5  # for each number


def measure_latency(
    exported: Network, net: MultiExitNet, images_BCHW: Tensor
) -> list[dict[str, Any]]:
    """Mean milliseconds an image, early exit and all exits, on this machine's processor.

    Args:
        exported: The programs, with as many threads as torch has.
        net: The network they were made of, on the CPU, in evaluation mode.
        images_BCHW: Real images: how early they leave decides about the time.

    Returns:
        A record for each batch size: ``exported_ms`` leaves early, ``exported_full_ms`` runs all
        programs, ``pytorch_full_ms`` is the network's forward pass.
    """
    full = copy.copy(exported)
    full.thresholds_K = [np.float32(np.inf)] * len(exported.thresholds_K)
    records = []
    for size in BATCH_SIZES:
        tensors = torch.split(images_BCHW, size)
        arrays = [tensor.numpy() for tensor in tensors]
        with torch.inference_mode():
            records.append(
                {
                    "batch": size,
                    "threads": torch.get_num_threads(),
                    "exported_ms": _per_image_ms(exported.classify, arrays),
                    "exported_full_ms": _per_image_ms(full.classify, arrays),
                    "pytorch_full_ms": _per_image_ms(net, tensors),
                }
            )
    return records


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
