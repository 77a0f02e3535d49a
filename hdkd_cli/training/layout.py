"""The memory order a network trains in, and the operators that go with it."""

from __future__ import annotations

import torch
from torch import nn

from hdkd_cli.models.blocks import fuse
from hdkd_cli.models.fused import Unavailable


def lay_out(
    net: nn.Module, device: torch.device, *, channels_last: bool, compiled: bool
) -> list[str]:
    """Bring ``net`` into its memory order, in place; returns what there is to tell.

    In NHWC order on a CPU, BatchNorm and ReLU become one operator. A compiler of the whole network
    joins operators by itself.
    """
    if not channels_last:
        return []
    net.to(memory_format=torch.channels_last)
    if device.type != "cpu" or compiled:
        return []
    try:
        fuse(net)
    except Unavailable as reason:
        return [f"BatchNorm and ReLU run as torch's own operators, which are slower: {reason}"]
    return []
