"""Which cells an MSDNet has, how wide they are, and which of them an exit depends on.

Plain arithmetic after Huang et al., ICLR 2018. Layers are numbered ℓ = 1..L (0 is the stem),
scales s = 0..S−1 (0 the finest).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hdkd_cli.choices import Prune


class Layer(NamedTuple):
    """One layer of the grid. Widths are those of a scale with growth factor 1."""

    number: int  # ℓ
    block: int  # the exit whose layers it is one of
    finest_in: int  # the finest scale it reads
    finest_out: int  # the finest scale it has
    width_in: int
    width: int  # after its cells
    width_out: int  # after its transition
    transition: bool


def plan_layers(
    depth_K: Sequence[int],
    scales: int,
    channels: int,
    growth: int,
    prune: Prune,
    reduction: float,
) -> list[Layer]:
    """Layers 1..L: when scales are dropped, and how wide the others are."""
    total = depth_K[-1]
    interval = math.ceil(total / scales)
    layers = []
    width_in = channels
    for number in range(1, total + 1):
        if prune == "max":
            finest_in = max(0, number - 2) // interval
            finest_out = (number - 1) // interval
            transition = finest_out > finest_in
        else:
            finest_in = max(0, scales - (total - number + 2))
            finest_out = max(0, scales - (total - number + 1))
            transition = number in (total // 3, 2 * total // 3)
        block = sum(number > depth for depth in depth_K)
        width = width_in + growth
        width_out = math.floor(reduction * width) if transition else width
        layers.append(
            Layer(number, block, finest_in, finest_out, width_in, width, width_out, transition)
        )
        width_in = width_out
    return layers


def cone(layers: Sequence[Layer], scales: int) -> list[tuple[Layer, int]]:
    """The cells on which the coarsest scale after ``layers`` depends, in computing order."""
    cells: list[tuple[Layer, int]] = []
    finest = scales - 1
    for layer in reversed(layers):
        cells.extend((layer, scale) for scale in range(finest, scales))
        finest = max(finest - 1, layer.finest_in)
    return cells[::-1]


def layer_problems(layers: Sequence[Layer], scales: int, prune: Prune) -> Iterator[str]:
    """``min`` drops one scale a layer: there must be enough layers for that."""
    if prune == "min" and len(layers) < scales - 1:
        yield (
            f"model.prune: 'min' needs at least {scales - 1} layers for {scales} scales, there "
            f"are {len(layers)}; add layers (model.base, model.step) or use 'max'"
        )


def width_problems(
    layers: Sequence[Layer], growth: int, growth_factors: Sequence[int]
) -> Iterator[str]:
    """Half of what a coarser scale gains comes from the finer one; no scale may run dry."""
    odd = sorted({growth * factor for factor in growth_factors[1:] if growth * factor % 2})
    if odd:
        yield (
            f"model.growth: times model.growth_factors gives {', '.join(map(str, odd))} new "
            "channels at a coarser scale, where two equal halves are needed; use an even growth"
        )
    if dry := next((layer for layer in layers if layer.width_out < 1), None):
        yield (
            f"model.reduction: leaves none of {dry.width} channels after layer {dry.number}; "
            "raise it, model.channels or model.growth"
        )
