"""Tiny classifiers under names of the libraries, for tests."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from torch import nn
from torchvision.models import ConvNeXt, SwinTransformer, VisionTransformer
from torchvision.models._api import register_model
from torchvision.models.convnext import CNBlockConfig

from hdkd_cli.models import MultiExitNet
from hdkd_cli.models.backbone import build_backbone
from hdkd_cli.models.backbone.zoo import make_classifier
from hdkd_cli.settings.networks import BackboneSettings


@register_model("tiny_vit")
def tiny_vit(*, weights: None = None, **arguments: Any) -> nn.Module:
    arguments = {"image_size": 32} | arguments
    return VisionTransformer(
        patch_size=8, num_layers=4, num_heads=2, hidden_dim=16, mlp_dim=32, **arguments
    )


@register_model("tiny_swin")
def tiny_swin(*, weights: None = None, **arguments: Any) -> nn.Module:
    return SwinTransformer([2, 2], 8, [2, 2], [2, 2], [2, 2], **arguments)


@register_model("tiny_convnext")
def tiny_convnext(*, weights: None = None, **arguments: Any) -> nn.Module:
    blocks = [CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 2)]
    return ConvNeXt(blocks, **arguments)


@register_model("tiny_tangled")
def tiny_tangled(*, weights: None = None, **_: Any) -> nn.Module:
    return Tangled()


@register_model("tiny_tangle_free")
def tiny_tangle_free(*, weights: None = None, **arguments: Any) -> nn.Module:
    return tiny_convnext(**arguments)


class Tangled(nn.Module):
    """Its way depends on the images."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.mean((2, 3))
        return self.layer(x if x.sum() > 0 else -x)


@register_model("tiny_tied")
def tiny_tied(*, weights: None = None, **_: Any) -> nn.Module:
    return Tied(shared=(0, 1))


@register_model("tiny_tied_all")
def tiny_tied_all(*, weights: None = None, **_: Any) -> nn.Module:
    return Tied(shared=(0, 1, 2, 3))


@register_model("tiny_tied_value")
def tiny_tied_value(*, weights: None = None, **_: Any) -> nn.Module:
    return Tied(shared=(), bias_twice=True)


class Mixing(nn.Module):
    """Two convolutions, of which the second may be another block's too."""

    def __init__(self, width_in: int, second: nn.Module | None) -> None:
        super().__init__()
        self.first = nn.Conv2d(width_in, 8, 3, stride=2, padding=1)
        self.second = second or nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).relu())


class Tied(nn.Module):
    """Four blocks, of which some share a convolution; a bias may be added after two of them."""

    def __init__(self, shared: tuple[int, ...], bias_twice: bool = False) -> None:
        super().__init__()
        convolution = nn.Conv2d(8, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            Mixing(8 if k else 3, convolution if k in shared else None) for k in range(4)
        )
        self.bias = nn.Parameter(torch.ones(8, 1, 1))
        self.after_bias = (0, 2) if bias_twice else ()
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for k, block in enumerate(self.blocks):
            x = block(x)
            if k in self.after_bias:
                x = x + self.bias
        return self.head(x.mean((2, 3)))


def backbone(
    name: str, size: int = 32, num_classes: int = 5, seed: int = 0, **settings: Any
) -> MultiExitNet:
    """A model cut into stages, in evaluation mode: a copy, for finding where to cut takes long."""
    return copy.deepcopy(_cut(name, size, num_classes, seed, tuple(settings.items())))


@cache
def _cut(
    name: str, size: int, num_classes: int, seed: int, settings: tuple[tuple[str, Any], ...]
) -> MultiExitNet:
    torch.manual_seed(seed)
    cut = build_backbone(
        BackboneSettings(name=name, **dict(settings)), num_classes=num_classes, image_size=size
    )
    return cut.eval()


def uncut(name: str, size: int = 32, num_classes: int = 5, seed: int = 0) -> nn.Module:
    """The same model with the same weights, whole."""
    torch.manual_seed(seed)
    return make_classifier(name, num_classes=num_classes, image_size=size, drop_path=None).eval()
