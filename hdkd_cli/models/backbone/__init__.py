"""Classifiers of torchvision and timm, cut into stages with an exit each."""

from hdkd_cli.models.backbone.build import Backbone, BackboneStage, build_backbone
from hdkd_cli.models.backbone.pretrained import load_pretrained

__all__ = ["Backbone", "BackboneStage", "build_backbone", "load_pretrained"]
