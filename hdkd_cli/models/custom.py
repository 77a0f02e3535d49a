"""A network of your own, from the factory that ``model.name`` points at."""

from __future__ import annotations

from hdkd_cli.errors import SettingsError
from hdkd_cli.models.conforming import forward_problem
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.settings.factories import call_factory
from hdkd_cli.settings.networks import CustomModelSettings


def build_custom(
    settings: CustomModelSettings, *, num_classes: int, image_size: int
) -> MultiExitNet:
    """Call the factory that ``model.name`` points at and check what it returns.

    Raises:
        SettingsError: there is no such factory, or what it returns is not what was asked for.
    """
    fixed = {"exits": settings.exits, "num_classes": num_classes, "image_size": image_size}
    net = call_factory("model.name", settings.name, fixed, settings.options, MultiExitNet)
    for what, has, wanted in (
        ("exits", net.num_exits, settings.exits),
        ("classes", net.num_classes, num_classes),
        ("input shape", tuple(net.input_shape), (3, image_size, image_size)),
    ):
        if has != wanted:
            raise SettingsError(
                f"model.name = {settings.name!r}: returned a network with {what} {has}, "
                f"the settings ask for {wanted}"
            )
    problem = forward_problem(net)
    if problem is not None:
        raise SettingsError(
            f"model.name = {settings.name!r}: {problem}",
            hint="leave forward to MultiExitNet; `hdkd doctor --network` checks the whole contract",
            subject="model.name",
        )
    return net
