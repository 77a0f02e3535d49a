"""A network made fast for inference: BatchNorm folded into convolutions, the device's memory order.

The full network and early exit both run on it, so that neither is compared with a slow other.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hdkd_cli.devices import keep_freed_memory
from hdkd_cli.models.blocks import ConvBnRelu
from hdkd_cli.models.contract import MultiExitNet


def deployed(net: MultiExitNet, device: torch.device) -> MultiExitNet:
    """Get ``net`` ready; on a CPU, this process then keeps the memory that it frees."""
    if device.type == "cpu":
        keep_freed_memory()
    return ready(net, device)


def ready(net: MultiExitNet, device: torch.device) -> MultiExitNet:
    """A copy of ``net`` on ``device`` that gives the same logits, up to rounding, sooner.

    Training may prefer another memory order: with BatchNorm folded away, convolutions in NHWC
    order are the faster ones on CPUs too.
    """
    return folded(net).to(device).to(memory_format=memory_order(device))


def memory_order(device: torch.device) -> torch.memory_format:
    """The order in which a `ready` network likes its images."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def folded(net: MultiExitNet) -> MultiExitNet:
    """A copy of ``net`` in evaluation mode in which no BatchNorm follows a convolution.

    Seen are neighbours in an ``nn.Sequential`` or `ConvBnRelu`, where what follows what is certain;
    any other BatchNorm stays as it is.
    """
    net = copy.deepcopy(net).eval()
    certain = (nn.Sequential.forward, ConvBnRelu.forward)
    chains = [m for m in net.modules() if type(m).forward in certain]
    for chain in chains:
        assert isinstance(chain, nn.Sequential)
        for i in reversed(range(len(chain) - 1)):
            conv, norm = chain[i], chain[i + 1]
            if (
                isinstance(conv, nn.Conv2d)
                and isinstance(norm, nn.BatchNorm2d)
                and norm.track_running_stats
            ):
                chain[i], chain[i + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return net
