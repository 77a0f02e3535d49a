"""Small networks for the tests of this folder."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from hdkd_cli.models import MSDNet, MultiExitNet, RANet, Stage, State

SMALL = {
    "exits": 3,
    "base": 2,
    "step": 1,
    "step_mode": "even",
    "channels": 4,
    "growth": 4,
    "growth_factors": (1, 2, 2),
    "bottleneck_factors": (1, 2, 2),
    "prune": "max",
    "reduction": 0.5,
    "stem": "cifar",
    "init": "torch",
    "num_classes": 4,
    "image_size": 20,
}


def small_msdnet(**changes: Any) -> MSDNet:
    """An MSDNet of a few layers in float64."""
    return MSDNet(**{**SMALL, **changes}).double()


@st.composite
def msdnet_arguments(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of small networks of all shapes, some with cells that no exit needs."""
    scales = draw(st.integers(1, 4))
    exits = draw(st.integers(1, 4))
    stem = draw(st.sampled_from(["cifar", "imagenet"])) if scales < 3 else "cifar"
    prune = draw(st.sampled_from(["max", "min"]))
    factor = st.integers(1, 3)
    return {
        "exits": exits,
        # `min` needs a layer for each scale it drops
        "base": draw(st.integers(1 if prune == "max" else max(1, scales - 1), 4)),
        "step": draw(st.integers(1, 2)),
        "step_mode": draw(st.sampled_from(["even", "linear"])),
        "channels": draw(st.integers(2, 4)),
        "growth": draw(st.sampled_from([2, 4])),
        "growth_factors": draw(st.lists(factor, min_size=scales, max_size=scales)),
        "bottleneck_factors": draw(st.lists(factor, min_size=scales, max_size=scales)),
        "prune": prune,
        "reduction": draw(st.sampled_from([0.5, 0.7, 1.0])),
        "stem": stem,
        "init": "torch",
        "num_classes": 3,
        "image_size": draw(st.integers(5, 6)) * 2 ** (scales - 1) * (4 if stem == "imagenet" else 1)
        - (1 if scales > 1 else 0),
    }


SMALL_RANET = {
    "scales": (1, 2, 2),
    "growth_factors": (2, 2, 1),
    "bottleneck_factors": (2, 1, 1),
    "blocks": 1,
    "block_step": 1,
    "step": 2,
    "step_mode": "even",
    "channels": 4,
    "growth": 4,
    "compress": 0.25,
    "reduction": 0.5,
    "stem": "cifar",
    "init": "torch",
    "num_classes": 4,
    "image_size": 11,
}


def small_ranet(**changes: Any) -> RANet:
    """A RANet of a few layers in float64."""
    return RANet(**{**SMALL_RANET, **changes}).double()


@st.composite
def ranet_arguments(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of small networks of all shapes."""
    steps = draw(st.lists(st.integers(0, 1), max_size=2))
    scales = list(itertools.accumulate(steps, initial=1))
    factors = st.lists(st.integers(1, 2), min_size=len(scales), max_size=len(scales))
    stem = draw(st.sampled_from(["cifar", "imagenet"])) if scales[-1] < 3 else "cifar"
    return {
        "scales": scales,
        "growth_factors": draw(factors),
        "bottleneck_factors": draw(factors),
        "blocks": draw(st.integers(1, 2)),
        "block_step": draw(st.integers(1, 2)),
        "step": draw(st.integers(1, 2)),
        "step_mode": draw(st.sampled_from(["even", "linear"])),
        "growth": draw(st.sampled_from([2, 4])),
        "compress": draw(st.sampled_from([0.5, 0.7])),
        "reduction": draw(st.sampled_from([0.5, 0.7, 1.0])),
        "stem": stem,
        "num_classes": 3,
        # the higher resolutions have odd sides
        "image_size": 5 * 2 ** (scales[-1] - 1) * (4 if stem == "imagenet" else 1)
        - (1 if scales[-1] > 1 else 0),
    }


class ChainStage(Stage):
    """Scalars: x ← w·x + u·side, side ← v·side, logit = h·x. The head does not read ``side``."""

    head_keys = ("x",)

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        w, u, v, h = torch.rand(4, generator=generator, dtype=torch.float64) + 0.5
        self.w, self.u, self.v, self.h = (nn.Parameter(x.clone()) for x in (w, u, v, h))

    def body(self, state: State) -> State:
        x, side = state.get("x", state.get("image")), state.get("side", state.get("image"))
        return {"x": self.w * x + self.u * side, "side": self.v * side}

    def head(self, state: State) -> Tensor:
        return self.h * state["x"].flatten(1)


def chain_net(exits: int = 3) -> MultiExitNet:
    """A chain of scalars that reads one number."""
    return MultiExitNet(
        [ChainStage(seed) for seed in range(exits)],
        name="chain",
        num_classes=1,
        input_shape=(1, 1, 1),
        arguments={},
    )


def images(net: MultiExitNet, batch: int, seed: int = 0) -> Tensor:
    """A batch of noise (B, ...) in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *net.input_shape, generator=generator, dtype=torch.float64)
