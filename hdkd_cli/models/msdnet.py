"""MSDNet: Huang et al., Multi-Scale Dense Networks for Resource Efficient Image Classification,
ICLR 2018, with the lazy evaluation it describes.

The network is a grid of cells: cell (ℓ, s), at layer ℓ = 1..L and scale s = 0..S−1 (0 the finest),
extends the features of (ℓ−1, s) by new ones computed from them and from (ℓ−1, s−1). An exit reads
the coarsest scale only, so it depends on a cone of cells that widens backwards. Stage k computes
the part of its cone that no earlier stage has. Layer by layer, and within a layer the coarsest
scale first, each cell finds its inputs as the newest tensors of their scales: the state is one
tensor a scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import cast

import torch
from torch import Tensor, nn

from hdkd_cli.choices import ParameterInit, Prune, StemKind, StepMode
from hdkd_cli.errors import SettingsError
from hdkd_cli.models.blocks import (
    ClassifiedStage,
    branch,
    classifier,
    conv3,
    conv_bn_relu,
    first_layer,
    initialise_he,
    size_problems,
)
from hdkd_cli.models.contract import MultiExitNet, State
from hdkd_cli.models.msdnet_grid import (
    Layer,
    cone,
    layer_problems,
    plan_layers,
    width_problems,
)


class MSDNet(MultiExitNet):
    """Multi-scale dense network with K exits. Cells that no exit depends on are not built.

    Args:
        exits: K.
        base: Layers before the first exit.
        step: Layers between two exits; ``linear``: ``step·i + 1`` before exit i = 1..K−1.
        step_mode: Distance between exits: the same everywhere, or growing.
        channels: Stem width c0 of a scale with growth factor 1.
        growth: Channels a layer adds at a scale with growth factor 1.
        growth_factors: Width factor of each scale, finest first.
        bottleneck_factors: Width of each scale's 1×1 bottlenecks over the width they feed.
        prune: Fine scales are dropped evenly over the depth (``max``), or as soon as the last
            exit can do without them (``min``).
        reduction: Share of the channels kept at transitions.
        stem: ``cifar``: 3×3 stem, heads 128 wide; ``imagenet``: 7×7 stem with stride 2 and
            pooling, heads as wide as what they read.
        init: ``he``: the paper's; ``torch``: the framework's, which public code ran.
        num_classes: C.
        image_size: Side of the square images in pixels.

    Raises:
        SettingsError: there is no such network; the message lists all reasons.
    """

    stages: Sequence[MSDNetStage]

    def __init__(
        self,
        *,
        exits: int,
        base: int,
        step: int,
        step_mode: StepMode,
        channels: int,
        growth: int,
        growth_factors: Sequence[int],
        bottleneck_factors: Sequence[int],
        prune: Prune,
        reduction: float,
        stem: StemKind,
        init: ParameterInit,
        num_classes: int,
        image_size: int,
    ) -> None:
        assert min(exits, base, step, channels, growth, num_classes, image_size) >= 1
        assert len(growth_factors) == len(bottleneck_factors)
        assert 0 < reduction <= 1
        scales = len(growth_factors)
        if scales == 0:
            raise SettingsError(
                "model.growth_factors: is empty", hint="give one factor for each scale"
            )
        gaps = (step if step_mode == "even" else step * i + 1 for i in range(1, exits))
        depth_K = list(accumulate(gaps, initial=base))
        layers = plan_layers(depth_K, scales, channels, growth, prune, reduction)
        problems = [
            *layer_problems(layers, scales, prune),
            *width_problems(layers, growth, growth_factors),
            *size_problems(
                image_size,
                stem,
                scales,
                "model.growth_factors: {} scales",
                "the coarsest scale",
                "the number of scales",
            ),
        ]
        if problems:
            raise SettingsError("\n".join(problems))

        cells_K: list[list[Cell]] = []
        built: set[tuple[Layer, int]] = set()
        for depth in depth_K:
            fresh = [place for place in cone(layers[:depth], scales) if place not in built]
            built.update(fresh)
            cells_K.append([Cell(*place, growth_factors, bottleneck_factors) for place in fresh])
        stages = []
        for k, depth in enumerate(depth_K):
            later = {key for cells in cells_K[k + 1 :] for cell in cells for key in cell.reads}
            width = layers[depth - 1].width_out * growth_factors[-1]
            stages.append(
                MSDNetStage(
                    _stem(stem, channels, growth_factors) if k == 0 else None,
                    cells_K[k],
                    classifier(stem, width, num_classes),
                    head_key=_key(scales - 1),
                    later_keys=later,
                )
            )
        super().__init__(
            stages,
            name="msdnet",
            num_classes=num_classes,
            input_shape=(3, image_size, image_size),
            arguments={
                "base": base,
                "step": step,
                "step_mode": step_mode,
                "channels": channels,
                "growth": growth,
                "growth_factors": list(growth_factors),
                "bottleneck_factors": list(bottleneck_factors),
                "prune": prune,
                "reduction": reduction,
                "stem": stem,
            },
        )
        if init == "he":
            initialise_he(self)

    def eager_ownership(self) -> list[list[nn.Module]]:
        """An exit is charged with all scales of its layers, whichever stage computes them."""
        groups = [list(stage.classifier.modules()) for stage in self.stages]
        for stage in self.stages:
            if stage.stem is not None:
                groups[0].extend(stage.stem.modules())
            for cell in stage.cells:
                groups[cell.layer.block].extend(cell.modules())
        return groups


class MSDNetStage(ClassifiedStage):
    """The cells between two exits, and the classifier of the later one.

    Args:
        stem: From the image to each scale's first tensor, finest first; for the first stage.
        cells: In the order in which they run.
        classifier: From the coarsest scale to logits.
        head_key: The coarsest scale.
        later_keys: The scales that later stages read.
    """

    cells: Sequence[Cell]  # an nn.ModuleList, typed by what it holds

    def __init__(
        self,
        stem: nn.ModuleList | None,
        cells: Iterable[Cell],
        classifier: nn.Sequential,
        *,
        head_key: str,
        later_keys: set[str],
    ) -> None:
        super().__init__()
        self.stem = stem
        self.cells = cast("Sequence[Cell]", nn.ModuleList(cells))
        self.classifier = classifier
        self.head_keys = (head_key,)
        self.kept_keys = later_keys | {head_key}

    def body(self, state: State) -> State:
        """Take the scales as far as this exit needs them; keep those that are still needed."""
        scales = dict(state)
        if self.stem is not None:
            x = state["image"]
            for scale, layer in enumerate(self.stem):
                x = scales[_key(scale)] = layer(x)
        for cell in self.cells:
            scales[cell.reads[0]] = cell(scales)
        return self.kept(scales)


class Cell(nn.Module):
    """One layer at one scale: a dense connection, its branches, and the transition after it.

    Args:
        layer: The layer.
        scale: The scale, 0 the finest.
        growth_factors: Width factor of each scale.
        bottleneck_factors: Bottleneck factor of each scale.
    """

    def __init__(
        self,
        layer: Layer,
        scale: int,
        growth_factors: Sequence[int],
        bottleneck_factors: Sequence[int],
    ) -> None:
        super().__init__()
        self.layer = layer
        self.scale = scale
        self.reads: tuple[str, ...] = (_key(scale),)
        factor = growth_factors[scale]
        width_in = layer.width_in * factor
        added = layer.width * factor - width_in
        self.down: nn.Sequential | None = None
        if scale > layer.finest_in:
            finer = scale - 1
            self.reads += (_key(finer),)
            added //= 2
            self.down = branch(
                layer.width_in * growth_factors[finer],
                added,
                stride=2,
                bottleneck=bottleneck_factors[finer],
            )
        self.same = branch(width_in, added, stride=1, bottleneck=bottleneck_factors[scale])
        self.transition: nn.Sequential | None = None
        if layer.transition:
            self.transition = conv_bn_relu(layer.width * factor, layer.width_out * factor, 1)

    def forward(self, scales: State) -> Tensor:
        """The scale's next tensor (B, width, H, W) from the newest tensors of the scales."""
        x = scales[self.reads[0]]
        parts = [x]
        if self.down is not None:
            parts.append(self.down(scales[self.reads[1]]))
        parts.append(self.same(x))
        out = torch.cat(parts, dim=1)
        return out if self.transition is None else self.transition(out)


def _stem(kind: StemKind, channels: int, growth_factors: Sequence[int]) -> nn.ModuleList:
    """The first tensor of each scale, each from the next finer one."""
    widths = [channels * factor for factor in growth_factors]
    coarser = (conv3(a, b, stride=2) for a, b in pairwise(widths))
    return nn.ModuleList([first_layer(kind, widths[0]), *coarser])


def _key(scale: int) -> str:
    """The name of a scale in the state."""
    return f"scale{scale}"
