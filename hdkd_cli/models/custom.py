"""A network of your own, from the factory that ``model.name`` points at."""

from __future__ import annotations

import inspect
from importlib import import_module

from hdkd_cli.errors import SettingsError
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.settings.networks import CustomModelSettings


def build_custom(
    settings: CustomModelSettings, *, num_classes: int, image_size: int
) -> MultiExitNet:
    """Call the factory that ``model.name`` points at and check what it returns.

    Raises:
        SettingsError: there is no such factory, or what it returns is not what was asked for.
    """
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
