"""Classifiers of torchvision and timm, cut into stages with an exit each."""

from hdkd_cli.models.backbone.build import Backbone, BackboneStage, build_backbone

__all__ = ["Backbone", "BackboneStage", "build_backbone"]
