"""From settings to networks, ours and the user's own."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter
from small_nets import SMALL, ChainStage, small_msdnet

from hdkd_cli.errors import SettingsError
from hdkd_cli.models import MSDNet, MultiExitNet, State, build_model
from hdkd_cli.models.architectures import ARCHITECTURES
from hdkd_cli.settings.networks import (
    CustomModelSettings,
    ModelSettings,
    MSDNetSettings,
    NetworkSettings,
    settings_of_network,
)


class OwnStage(ChainStage):
    """One logit for each class."""

    def __init__(self, seed: int, num_classes: int) -> None:
        super().__init__(seed)
        self.num_classes = num_classes

    def head(self, state: State) -> torch.Tensor:
        return super().head(state)[:, : self.num_classes]


def factory(
    *, exits: int, num_classes: int, image_size: int, extra: int = 0, wrong: int = 0
) -> MultiExitNet:
    """A network of the user's own."""
    return MultiExitNet(
        [OwnStage(seed, num_classes) for seed in range(exits + extra)],
        name="own",
        num_classes=num_classes + wrong,
        input_shape=(3, image_size, image_size),
        arguments={},
    )


@pytest.fixture
def user_module(monkeypatch):
    """An importable module ``users_nets`` with one good factory and a few bad ones."""
    module = ModuleType("users_nets")
    module.good = factory
    module.linear = lambda **_: torch.nn.Linear(1, 1)
    module.small = lambda exits, num_classes, image_size: factory(
        exits=exits, num_classes=num_classes, image_size=image_size // 2
    )
    module.number = 3
    monkeypatch.setitem(sys.modules, "users_nets", module)
    return module


def own(name: str, **options: object) -> CustomModelSettings:
    return CustomModelSettings(name=name, exits=2, options=options)


def test_the_default_settings_give_a_network_that_runs():
    net = build_model(MSDNetSettings(), num_classes=10, image_size=32).eval()
    assert isinstance(net, MSDNet)
    assert net.gradient_equilibrium == "off"
    with torch.no_grad():
        assert net(torch.zeros(2, 3, 32, 32)).shape == (5, 2, 10)


def test_every_setting_reaches_the_network():
    ours = {key: value for key, value in SMALL.items() if key not in ("num_classes", "image_size")}
    settings = TypeAdapter(ModelSettings).validate_python(ours)
    torch.manual_seed(0)
    net = build_model(settings, num_classes=4, image_size=20, gradient_equilibrium="head")
    torch.manual_seed(0)
    expected = small_msdnet()
    assert net.architecture() == expected.architecture()
    assert net.gradient_equilibrium == "head"
    for a, b in zip(net.parameters(), expected.parameters(), strict=True):
        assert torch.equal(a.double(), b)  # `init` too


def test_a_network_of_your_own(user_module):
    net = build_model(
        own("users_nets:good", extra=0),
        num_classes=1,
        image_size=7,
        gradient_equilibrium="state",
    )
    assert (net.num_exits, net.num_classes, net.input_shape) == (2, 1, (3, 7, 7))
    assert net.gradient_equilibrium == "state"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            own("no_such_module_here:good"),
            "(?s)no_such_module_here cannot be imported .*PYTHONPATH",
        ),
        (own("users_nets.deeper:good"), "users_nets.deeper cannot be imported"),
        (own("users_nets:missing"), "users_nets has no function 'missing'"),
        (own("users_nets:number"), "users_nets has no function 'number'"),
        (own("users_nets:good", depth=3), "does not take .*depth"),
        (own("users_nets:good", exits=3), "model.options: exits cannot be set here"),
        (own("users_nets:linear"), "returned a Linear, a .*MultiExitNet is needed"),
        (own("users_nets:good", extra=1), "with exits 3, the settings ask for 2"),
        (own("users_nets:good", wrong=1), "with classes 2, the settings ask for 1"),
        (own("users_nets:small"), r"with input shape \(3, 3, 3\)"),
    ],
)
def test_what_is_wrong_with_it_is_said(user_module, settings, message):
    with pytest.raises(SettingsError, match=message):
        build_model(settings, num_classes=1, image_size=7)


def test_every_kind_of_settings_has_an_architecture():
    kinds = [architecture.settings for architecture in ARCHITECTURES.values()]
    assert sorted(kinds, key=str) == sorted(get_args(NetworkSettings), key=str)
    for name, (kind, _) in ARCHITECTURES.items():
        assert settings_of_network(name) is kind
