"""What the networks of the MSDNet family are made of (Huang et al., ICLR 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn

from hdkd_cli.choices import StemKind
from hdkd_cli.models.contract import Stage, State
from hdkd_cli.models.fused import batch_norm_relu, library

CIFAR_HEAD_WIDTH = 128
HEAD_SIDES = range(5, 13)
"""Sides in pixels that a head can read: its three halvings must leave one pixel."""


class ClassifiedStage(Stage):
    """A stage that ends in a classifier of one tensor, and hands on what is still needed.

    Attributes:
        classifier: From the tensor called ``head_keys[0]`` to logits.
        kept_keys: What the head and later stages read.
    """

    classifier: nn.Sequential
    kept_keys: set[str]

    def kept(self, state: State) -> State:
        """``state`` without what is not read later."""
        return {key: x for key, x in state.items() if key in self.kept_keys}

    def head(self, state: State) -> Tensor:
        """Logits (B, C)."""
        logits: Tensor = self.classifier(state[self.head_keys[0]])
        return logits

    def head_modules(self) -> tuple[nn.Module, ...]:
        """The classifier."""
        return (self.classifier,)


class ConvBnRelu(nn.Sequential):
    """Convolution, BatchNorm, ReLU, and what may follow.

    Attributes:
        fused: In training, BatchNorm and ReLU are one operator where there is one for the tensor;
            it has to be available (``fused.library``).
    """

    fused = False

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C, H', W')."""
        convolution, norm, relu, *rest = self
        if self.fused and norm.training:
            x = batch_norm_relu(convolution(x), cast("nn.BatchNorm2d", norm))
        else:
            x = relu(norm(convolution(x)))
        for module in rest:
            x = module(x)
        return x


def fuse(net: nn.Module) -> None:
    """Let ``net`` train with BatchNorm and ReLU as one operator, where it has blocks of them.

    Raises:
        Unavailable: this machine cannot have the operator; nothing is changed.
    """
    blocks = [module for module in net.modules() if isinstance(module, ConvBnRelu)]
    if blocks:
        library()
    for block in blocks:
        block.fused = True


def conv_bn_relu(
    width_in: int, width: int, kernel: int, *, stride: int = 1, padding: int = 0
) -> ConvBnRelu:
    """CBR: convolution without bias, BatchNorm, ReLU."""
    return ConvBnRelu(
        nn.Conv2d(width_in, width, kernel, stride=stride, padding=padding, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),  # BatchNorm keeps its input, not its output
    )


def conv3(width_in: int, width: int, *, stride: int = 1) -> nn.Sequential:
    """3×3 CBR, the side divided by ``stride`` and rounded up."""
    return conv_bn_relu(width_in, width, 3, stride=stride, padding=1)


def branch(width_in: int, width: int, *, stride: int, bottleneck: int) -> nn.Sequential:
    """1×1 CBR to at most ``bottleneck`` times the width, then 3×3 CBR to ``width``."""
    narrow = min(width_in, bottleneck * width)
    return nn.Sequential(conv_bn_relu(width_in, narrow, 1), conv3(narrow, width, stride=stride))


def first_layer(kind: StemKind, width: int) -> nn.Sequential:
    """From the image to the features of the finest scale."""
    if kind == "cifar":
        return conv3(3, width)
    return ConvBnRelu(
        nn.Conv2d(3, width, 7, stride=2, padding=3),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    )


def first_side(kind: StemKind, image_size: int) -> int:
    """Side in pixels of what ``first_layer`` returns."""
    return image_size if kind == "cifar" else halved(halved(image_size))


def halved(side: int) -> int:
    """Side in pixels after a 3×3 convolution with stride 2."""
    return (side + 1) // 2


def size_problems(
    image_size: int, stem: StemKind, levels: int, said: str, last: str, change: str
) -> Iterator[str]:
    """The heads need a certain size of what they read.

    Args:
        image_size: Side of the images.
        stem: What reads them.
        levels: How many resolutions there are, each half of the one before.
        said: Names the setting and the levels, ``{}`` their number.
        last: What the last level is called.
        change: What to change.
    """
    side = first_side(stem, image_size)
    for _ in range(levels - 1):
        side = halved(side)
    if side not in HEAD_SIDES:
        yield (
            f"{said.format(levels)} and the {stem} stem turn {image_size} pixels into {side} at "
            f"{last}, where the heads take {HEAD_SIDES[0]} to {HEAD_SIDES[-1]}; change {change}, "
            "model.stem or data.image_size"
        )


def classifier(kind: StemKind, width_in: int, num_classes: int) -> nn.Sequential:
    """From features whose side is in ``HEAD_SIDES`` to logits."""
    width = CIFAR_HEAD_WIDTH if kind == "cifar" else width_in
    return nn.Sequential(
        conv3(width_in, width, stride=2),
        conv3(width, width, stride=2),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(width, num_classes),
    )


def initialise_he(net: nn.Module) -> None:
    """The paper's initialisation: He et al., ICCV 2015, fan-out, normal; all biases zero.

    The public PyTorch code spells it out but never applies it. Weights of linear layers stay as
    the framework draws them, BatchNorm as it sets them (1 and 0).
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
