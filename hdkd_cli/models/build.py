"""From settings to a network."""

from __future__ import annotations

import inspect
from importlib import import_module

from hdkd_cli.errors import SettingsError
from hdkd_cli.models.contract import EquilibriumMode, MultiExitNet
from hdkd_cli.models.msdnet import MSDNet
from hdkd_cli.settings.schema import CustomModelSettings, ModelSettings


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
    if isinstance(settings, CustomModelSettings):
        net = _custom(settings, num_classes=num_classes, image_size=image_size)
    else:
        arguments = settings.model_dump(exclude={"name"})
        net = MSDNet(**arguments, num_classes=num_classes, image_size=image_size)
    net.gradient_equilibrium = gradient_equilibrium
    return net


def _custom(settings: CustomModelSettings, *, num_classes: int, image_size: int) -> MultiExitNet:
    """Call the factory that ``model.name`` points at and check what it returns."""
    where = f"model.name = {settings.name!r}"
    module_name, _, attribute = settings.name.partition(":")
    try:
        module = import_module(module_name)
    except ImportError as problem:
        raise SettingsError(
            f"{where}: {module_name} cannot be imported ({problem}); install it or put its folder "
            "on PYTHONPATH"
        ) from problem
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise SettingsError(
            f"{where}: {module_name} has no function {attribute!r}; name one that returns a "
            "MultiExitNet"
        )

    fixed = {"exits": settings.exits, "num_classes": num_classes, "image_size": image_size}
    if taken := sorted(fixed.keys() & settings.options.keys()):
        raise SettingsError(
            f"model.options: {', '.join(taken)} cannot be set here (model.exits and the data "
            "settings decide)"
        )
    arguments = fixed | settings.options
    try:
        inspect.signature(factory).bind(**arguments)
    except (TypeError, ValueError) as problem:
        raise SettingsError(
            f"{where}: the factory does not take {', '.join(arguments)} ({problem})"
        ) from problem
    net = factory(**arguments)

    if not isinstance(net, MultiExitNet):
        raise SettingsError(
            f"{where}: returned a {type(net).__name__}, a hdkd_cli.models.MultiExitNet is needed"
        )
    for what, has, wanted in (
        ("exits", net.num_exits, settings.exits),
        ("classes", net.num_classes, num_classes),
        ("input shape", tuple(net.input_shape), (3, image_size, image_size)),
    ):
        if has != wanted:
            raise SettingsError(
                f"{where}: returned a network with {what} {has}, the settings ask for {wanted}"
            )
    return net
