"""RANet: Yang et al., Resolution Adaptive Networks for Efficient Inference, CVPR 2020.

Sub-networks of growing resolution. The first is a chain of dense blocks on the coarsest features
of the stem; each further one starts from finer features and first runs blocks that fuse what the
sub-network below has computed, then dense blocks of its own. An exit follows each dense block, all
at the lowest resolution.

What a block hands to the sub-network above is its input and what it has after every layer. A layer
appends channels to what it reads, so these are the first channels of one tensor, and the state
holds that tensor only; of a block whose last layer halves the side, two. Nothing that a stage
computes is needed by later exits alone: RANet has nothing to postpone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from torch import nn

from hdkd_cli.choices import ParameterInit, StemKind, StepMode
from hdkd_cli.errors import SettingsError
from hdkd_cli.models.blocks import (
    ClassifiedStage,
    classifier,
    conv3,
    first_layer,
    initialise_he,
    size_problems,
)
from hdkd_cli.models.contract import MultiExitNet, State
from hdkd_cli.models.ranet_blocks import RANetBlock, blocks_of_exits, stem_key
from hdkd_cli.models.ranet_plan import plan_blocks, scale_problems, width_problems


class RANet(MultiExitNet):
    """Resolution adaptive network with ``blocks + block_step · (S−1)`` exits.

    Args:
        scales: σ of each of S sub-networks, lowest resolution first: 1 + how often its side is
            halved on the way to the lowest resolution.
        growth_factors: Width factor of each sub-network.
        bottleneck_factors: Width of each sub-network's 1×1 bottlenecks over the width they feed.
        blocks: Blocks of the first sub-network.
        block_step: Blocks that each further sub-network has more.
        step: Layers of a block; ``linear``: of the first block, block t has t times as many.
        step_mode: Whether all blocks have the same number of layers.
        channels: Stem width c0 for a growth factor of 1.
        growth: Channels a layer adds for a growth factor of 1.
        compress: Share of the channels a fusing layer adds that comes from the lower resolution.
        reduction: Share of the channels kept at transitions.
        stem: ``cifar``: 3×3 stem, heads 128 wide; ``imagenet``: 7×7 stem with stride 2 and
            pooling, heads as wide as what they read.
        init: ``he``: He fan-out normal; ``torch``: the framework's.
        num_classes: C.
        image_size: Side of the square images in pixels.

    Raises:
        SettingsError: there is no such network; the message lists all reasons.
    """

    stages: Sequence[RANetStage]

    def __init__(
        self,
        *,
        scales: Sequence[int],
        growth_factors: Sequence[int],
        bottleneck_factors: Sequence[int],
        blocks: int,
        block_step: int,
        step: int,
        step_mode: StepMode,
        channels: int,
        growth: int,
        compress: float,
        reduction: float,
        stem: StemKind,
        init: ParameterInit,
        num_classes: int,
        image_size: int,
    ) -> None:
        assert min(blocks, block_step, step, channels, growth, num_classes, image_size) >= 1
        assert len(scales) == len(growth_factors) == len(bottleneck_factors)
        assert 0 < compress < 1
        assert 0 < reduction <= 1
        if problems := list(scale_problems(scales)):
            raise SettingsError("\n".join(problems))
        plan = plan_blocks(
            scales,
            growth_factors,
            blocks=blocks,
            block_step=block_step,
            step=step,
            step_mode=step_mode,
            channels=channels,
            growth=growth,
            compress=compress,
            reduction=reduction,
        )
        problems = [
            *width_problems(plan, compress, reduction),
            *size_problems(
                image_size,
                stem,
                scales[-1],
                "model.scales: {} resolutions",
                "the lowest",
                "model.scales",
            ),
        ]
        if problems:
            raise SettingsError("\n".join(problems))

        blocks_K = blocks_of_exits(plan, bottleneck_factors, compress)
        stages = []
        for k, own in enumerate(blocks_K):
            later = {key for rest in blocks_K[k + 1 :] for block in rest for key in block.reads}
            stages.append(
                RANetStage(
                    _stem(stem, scales, [channels * g for g in growth_factors]) if k == 0 else None,
                    own,
                    classifier(stem, own[-1].plan.width_out, num_classes),
                    later_keys=later,
                )
            )
        super().__init__(
            stages,
            name="ranet",
            num_classes=num_classes,
            input_shape=(3, image_size, image_size),
            arguments={
                "scales": list(scales),
                "growth_factors": list(growth_factors),
                "bottleneck_factors": list(bottleneck_factors),
                "blocks": blocks,
                "block_step": block_step,
                "step": step,
                "step_mode": step_mode,
                "channels": channels,
                "growth": growth,
                "compress": compress,
                "reduction": reduction,
                "stem": stem,
            },
        )
        if init == "he":
            initialise_he(self)


class RANetStage(ClassifiedStage):
    """The blocks between two exits, and the classifier of the later one.

    Args:
        stem: From the image to each sub-network's first tensor, highest resolution first; for the
            first stage.
        blocks: In the order in which they run.
        classifier: From what the last of them leaves to logits.
        later_keys: The entries that later stages read.
    """

    blocks: Sequence[RANetBlock]  # an nn.ModuleList, typed by what it holds

    def __init__(
        self,
        stem: nn.ModuleList | None,
        blocks: Sequence[RANetBlock],
        classifier: nn.Sequential,
        *,
        later_keys: set[str],
    ) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = cast("Sequence[RANetBlock]", nn.ModuleList(blocks))
        self.classifier = classifier
        self.head_keys = (blocks[-1].writes,)
        self.kept_keys = later_keys | set(self.head_keys)

    def body(self, state: State) -> State:
        """Run the blocks; keep what is still needed."""
        features = dict(state)
        if self.stem is not None:
            x = state["image"]
            for net, layer in zip(range(len(self.stem), 0, -1), self.stem, strict=True):
                x = features[stem_key(net)] = layer(x)
        for block in self.blocks:
            features.update(block(features))
        return self.kept(features)


def _stem(kind: StemKind, scales: Sequence[int], widths: Sequence[int]) -> nn.ModuleList:
    """The first tensor of each sub-network, highest resolution first, each from the one before."""
    layers = [first_layer(kind, widths[-1])]
    order = zip(reversed(scales), reversed(widths), strict=True)
    for (fine, wide), (coarse, width) in pairwise(order):
        layers.append(conv3(wide, width, stride=1 if fine == coarse else 2))
    return nn.ModuleList(layers)
