"""The architectures: name → their settings, and how a network is built from them.

A new one adds a row here and its settings to ``settings/networks.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from hdkd_cli.models.backbone import build_backbone
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.models.custom import build_custom
from hdkd_cli.models.msdnet import MSDNet
from hdkd_cli.models.ranet import RANet
from hdkd_cli.settings.networks import (
    AnyNetworkSettings,
    BackboneSettings,
    CustomModelSettings,
    MSDNetSettings,
    RANetSettings,
)


class Build(Protocol):
    """A network of an architecture, with fresh weights from torch's global RNG."""

    def __call__(self, settings: Any, /, *, num_classes: int, image_size: int) -> MultiExitNet:
        """Build the network that ``settings`` describe.

        Raises:
            SettingsError: they fit no network.
        """


class Architecture(NamedTuple):
    """What is known of an architecture."""

    settings: type[AnyNetworkSettings]
    build: Build


def _with_arguments(network: Callable[..., MultiExitNet]) -> Build:
    """``network``, which takes every setting of its own as an argument."""

    def build(
        settings: AnyNetworkSettings, /, *, num_classes: int, image_size: int
    ) -> MultiExitNet:
        arguments = settings.model_dump(exclude=set(AnyNetworkSettings.model_fields))
        return network(**arguments, num_classes=num_classes, image_size=image_size)

    return build


ARCHITECTURES: Mapping[str, Architecture] = {
    "msdnet": Architecture(MSDNetSettings, _with_arguments(MSDNet)),
    "ranet": Architecture(RANetSettings, _with_arguments(RANet)),
    "torchvision:MODEL": Architecture(BackboneSettings, build_backbone),
    "package.module:factory": Architecture(CustomModelSettings, build_custom),
}
