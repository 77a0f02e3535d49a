"""The blocks of a RANet, and the tensors they read and leave by name."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hdkd_cli.models.blocks import (
    branch,
    conv_bn_relu,
)
from hdkd_cli.models.contract import State
from hdkd_cli.models.ranet_plan import Block


class DenseBlock(nn.Module):
    """Layers that each append what a branch makes of all that is there, and a transition.

    Args:
        plan: The block.
        source: The entry that it continues.
        bottleneck: Bottleneck factor of its sub-network.
    """

    def __init__(self, plan: Block, source: str, bottleneck: int) -> None:
        super().__init__()
        self.plan = plan
        self.reads = (source,)
        self.writes = _out_key(plan) if plan.transition else _end_key(plan)
        self.layers = nn.ModuleList(
            branch(width, plan.growth, stride=1, bottleneck=bottleneck)
            for width in plan.widths[:-1]
        )
        self.transition = _transition(plan)

    def forward(self, features: State) -> State:
        """What the block leaves, by key."""
        x = features[self.reads[0]]
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        found = {_end_key(self.plan): x}
        if self.transition is not None:
            found[self.writes] = self.transition(x)
        return found


class FusionBlock(nn.Module):
    """A block that also reads what the same block of the sub-network below has at each layer.

    Args:
        plan: The block.
        source: The entry that it continues.
        low: The block below.
        bottlenecks: Bottleneck factors of the sub-network below and of its own.
        compress: Share of the added channels that comes from below.
    """

    def __init__(
        self, plan: Block, source: str, low: Block, bottlenecks: Sequence[int], compress: float
    ) -> None:
        super().__init__()
        self.plan = plan
        self.low = low
        self.reads = (source, _end_key(low), *([_before_key(low)] if low.down else []))
        self.writes = _out_key(plan)
        from_low = math.floor(compress * plan.growth)
        self.low_layers = nn.ModuleList(
            branch(width, from_low, stride=1, bottleneck=bottlenecks[0])
            for width in low.widths[:-1]
        )
        last_only = [False] * (plan.layers - 1) + [True]
        self.layers = nn.ModuleList(
            branch(
                width,
                plan.growth - from_low,
                stride=2 if plan.down and last else 1,
                bottleneck=bottlenecks[1],
            )
            for width, last in zip(plan.widths[:-1], last_only, strict=True)
        )
        self.append = conv_bn_relu(low.width, plan.appended, 1)
        self.transition = _transition(plan)

    def forward(self, features: State) -> State:
        """What the block leaves, by key."""
        x = features[self.reads[0]]
        low_end = features[_end_key(self.low)]
        low_before = features[_before_key(self.low)] if self.low.down else low_end
        found = {}
        for layer, low_layer, low_width in zip(
            self.layers, self.low_layers, self.low.widths[:-1], strict=True
        ):
            found[_before_key(self.plan)] = x
            own = layer(x)
            low = low_layer(low_before[:, :low_width])
            x = torch.cat([_resize(x, own), _resize(low, own), own], dim=1)
        found[_end_key(self.plan)] = x
        x = torch.cat([x, _resize(self.append(low_end), x)], dim=1)
        found[self.writes] = x if self.transition is None else self.transition(x)
        return found


RANetBlock = DenseBlock | FusionBlock


def blocks_of_exits(
    plan: Sequence[Sequence[Block]], bottleneck_factors: Sequence[int], compress: float
) -> list[list[RANetBlock]]:
    """The blocks of each stage: those up to the next dense one."""
    blocks_K: list[list[RANetBlock]] = []
    waiting: list[RANetBlock] = []
    for i, net in enumerate(plan):
        source = stem_key(i + 1)
        for t, block in enumerate(net):
            if block.fuses:
                factors = bottleneck_factors[i - 1 : i + 1]
                waiting.append(FusionBlock(block, source, plan[i - 1][t], factors, compress))
            else:
                waiting.append(DenseBlock(block, source, bottleneck_factors[i]))
                blocks_K.append(waiting)
                waiting = []
            source = (waiting or blocks_K[-1])[-1].writes
    return blocks_K


def _transition(plan: Block) -> nn.Sequential | None:
    if not plan.transition:
        return None
    return conv_bn_relu(plan.width + plan.appended, plan.width_out, 1)


def _resize(x: Tensor, like: Tensor) -> Tensor:
    """``x`` at the size of ``like``."""
    size = like.shape[-2:]
    if x.shape[-2:] == size:
        return x
    return interpolate(x, size=size, mode="bilinear", align_corners=True)


def stem_key(net: int) -> str:
    """The first tensor of a sub-network."""
    return f"stem{net}"


def _before_key(block: Block) -> str:
    """What a block has before its last layer."""
    return f"net{block.net}_block{block.number}_before"


def _end_key(block: Block) -> str:
    """What a block has after its last layer."""
    return f"net{block.net}_block{block.number}_end"


def _out_key(block: Block) -> str:
    """What a block hands on to the next."""
    return f"net{block.net}_block{block.number}"
