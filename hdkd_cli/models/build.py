"""From settings to a network."""

from __future__ import annotations

from hdkd_cli.choices import EquilibriumMode
from hdkd_cli.models.architectures import ARCHITECTURES
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.models.static import static_network
from hdkd_cli.settings.networks import ModelSettings


def build_model(
    settings: ModelSettings,
    *,
    num_classes: int,
    image_size: int,
    gradient_equilibrium: EquilibriumMode = "off",
) -> MultiExitNet:
    """Build the network that ``settings`` describe, with fresh weights from torch's global RNG.

    Args:
        settings: The model section.
        num_classes: C.
        image_size: Side of the square images in pixels.
        gradient_equilibrium: Which tensors gradient equilibrium acts on.

    Raises:
        SettingsError: the arguments fit no network, or a network of your own cannot be had.
    """
    build = dict(ARCHITECTURES.values())[type(settings)]
    net = build(settings, num_classes=num_classes, image_size=image_size)
    if settings.static:
        net = static_network(net, settings.cut_at)
    net.gradient_equilibrium = gradient_equilibrium
    return net
