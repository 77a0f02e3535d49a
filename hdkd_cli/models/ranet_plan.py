"""Which blocks a RANet has and how wide they are.

Plain arithmetic after Yang et al., CVPR 2020. Sub-networks are numbered i = 1..S, the lowest
resolution first; blocks t = 1..M_i within one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from hdkd_cli.choices import StepMode


class Block(NamedTuple):
    """One block of a sub-network."""

    net: int  # i
    number: int  # t
    layers: int
    fuses: bool  # reads the same block of sub-network i-1; else it is dense and an exit follows
    down: bool  # its last layer halves the side
    width_in: int
    growth: int  # channels a layer adds
    width: int  # after its layers
    appended: int  # channels from the end of the block that it fuses with
    width_out: int  # with what is appended, after its transition
    transition: bool

    @property
    def widths(self) -> list[int]:
        """Before the first layer and after each."""
        return [self.width_in + j * self.growth for j in range(self.layers + 1)]


def plan_blocks(
    scales: Sequence[int],
    growth_factors: Sequence[int],
    *,
    blocks: int,
    block_step: int,
    step: int,
    step_mode: StepMode,
    channels: int,
    growth: int,
    compress: float,
    reduction: float,
) -> list[list[Block]]:
    """The blocks of each sub-network, in order."""
    # A list shared by all sub-networks gets one entry for each dense block, and each position t has
    # exactly one dense block: the list is a function of t.
    plan: list[list[Block]] = []
    depths = [0]  # M_0 = 0, M_1, ..
    for i, (scale, factor) in enumerate(zip(scales, growth_factors, strict=True), 1):
        depth = blocks + block_step * (i - 1)
        ends = {j * depth // scale for j in range(1, scale)}
        halvings = depths[len(depths) - (scale - 1) :]
        width_in = channels * factor
        net = []
        for t in range(1, depth + 1):
            layers = step if step_mode == "even" else step * t
            fuses = t <= depths[-1]
            width = width_in + layers * growth * factor
            appended = math.floor(compress * width) if fuses else 0
            transition = t in ends
            width_out = width + appended
            if transition:
                width_out = math.floor(reduction * width_out)
            net.append(
                Block(
                    net=i,
                    number=t,
                    layers=layers,
                    fuses=fuses,
                    down=fuses and t in halvings,
                    width_in=width_in,
                    growth=growth * factor,
                    width=width,
                    appended=appended,
                    width_out=width_out,
                    transition=transition,
                )
            )
            width_in = width_out
        plan.append(net)
        depths.append(depth)
    return plan


def scale_problems(scales: Sequence[int]) -> Iterator[str]:
    """Each sub-network has to come down to the resolution of the first."""
    if not scales:
        yield "model.scales: is empty; give one entry for each sub-network"
    elif scales[0] != 1 or any(b - a not in (0, 1) for a, b in pairwise(scales)):
        yield (
            f"model.scales: {', '.join(map(str, scales))} must begin with 1 and each entry must be "
            "the one before it or one more"
        )


def width_problems(
    plan: Sequence[Sequence[Block]], compress: float, reduction: float
) -> Iterator[str]:
    """No branch and no transition may run dry."""
    blocks = [block for net in plan for block in net]
    thin = [
        b.growth for b in blocks if b.fuses and not 0 < math.floor(compress * b.growth) < b.growth
    ]
    if thin:
        yield (
            f"model.compress: {compress} of the {min(thin)} channels that a fusing layer adds is "
            "less than one to come from the lower resolution; raise it or model.growth"
        )
    if dry := next((b for b in blocks if b.width_out < 1), None):
        yield (
            f"model.reduction: {reduction} leaves none of {dry.width + dry.appended} channels "
            f"after block {dry.number} of sub-network {dry.net}; raise it, model.channels or "
            "model.growth"
        )
