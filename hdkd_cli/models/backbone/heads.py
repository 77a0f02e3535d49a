"""What an earlier exit reads its logits with, by the layout of the features. [ours]

Normalisation first: features inside a backbone are not scaled for a linear layer.
"""

from __future__ import annotations

from torch import Tensor, nn

from hdkd_cli.models.backbone.cut import Layout
from hdkd_cli.models.blocks import conv_bn_relu


def exit_head(
    layout: Layout,
    shape: tuple[int, ...],
    *,
    num_classes: int,
    bottleneck: int | None,
    tokens: Tokens,
) -> nn.Module:
    """A fresh head for features of this layout and shape (without the batch).

    Args:
        layout: Where the channels are.
        shape: Of the features of one image.
        num_classes: C.
        bottleneck: Width of a 1×1 convolution before the pool, for maps; None: none.
        tokens: Which tokens count, for tokens.
    """
    if layout == "tokens":
        return TokenHead(shape[-1], num_classes, tokens)
    if layout == "map-last":
        return MapLastHead(shape[-1], num_classes)
    width = bottleneck or shape[0]
    return nn.Sequential(
        nn.BatchNorm2d(shape[0]),
        *([conv_bn_relu(shape[0], bottleneck, 1)] if bottleneck else []),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, num_classes),
    )


class Tokens:
    """Which tokens of a backbone an exit reads.

    Attributes:
        prefix: How many tokens stand before those of the image.
        read_first: Read the first one (the class token), or the mean of the image's.
    """

    def __init__(self, model: nn.Module) -> None:
        named = {name.rpartition(".")[2] for name, _ in model.named_parameters()}
        has_class_token = bool(named & {"cls_token", "class_token"})
        own: object = getattr(model, "num_prefix_tokens", int(has_class_token))
        self.prefix = own if isinstance(own, int) else int(has_class_token)
        pooled: object = getattr(model, "global_pool", "token")
        self.read_first = self.prefix > 0 and has_class_token and pooled == "token"


class TokenHead(nn.Module):
    """Normalise, read the class token or the mean, classify: (B, N, width) → (B, C)."""

    def __init__(self, width: int, num_classes: int, tokens: Tokens) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, num_classes)
        self.tokens = tokens

    def forward(self, features_BNW: Tensor) -> Tensor:
        if self.tokens.read_first:
            read_BW = self.norm(features_BNW[:, 0])
        else:
            read_BW = self.norm(features_BNW[:, self.tokens.prefix :]).mean(1)
        logits: Tensor = self.linear(read_BW)
        return logits


class MapLastHead(nn.Module):
    """Normalise, average, classify: (B, H, W, width) → (B, C)."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.norm(features).mean((1, 2)))
        return logits
