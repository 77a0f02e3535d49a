"""Tiny classifiers under names of the libraries, for tests."""

from __future__ import annotations

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


def backbone(
    name: str, size: int = 32, num_classes: int = 5, seed: int = 0, **settings: Any
) -> MultiExitNet:
    """A model cut into stages, in evaluation mode."""
    torch.manual_seed(seed)
    cut = build_backbone(
        BackboneSettings(name=name, **settings), num_classes=num_classes, image_size=size
    )
    return cut.eval()


def uncut(name: str, size: int = 32, num_classes: int = 5, seed: int = 0) -> nn.Module:
    """The same model with the same weights, whole."""
    torch.manual_seed(seed)
    return make_classifier(name, num_classes=num_classes, image_size=size, drop_path=None).eval()
