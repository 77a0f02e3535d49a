"""Static networks: one exit of the network with all exits, at the cost of what it depends on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_nets import ChainStage, chain_net, images, small_msdnet, small_ranet
from torch import nn

from hdkd_cli.errors import SettingsError
from hdkd_cli.models import MultiExitNet, State, build_model, measure_costs
from hdkd_cli.models.static import static_network
from hdkd_cli.settings.networks import (
    BackboneSettings,
    MSDNetSettings,
    NetworkSettings,
    RANetSettings,
)

MAKERS = [small_msdnet, small_ranet, chain_net]


def pair(make: Callable[[], MultiExitNet], cut_at: int | None) -> tuple[MultiExitNet, MultiExitNet]:
    """(the network with all exits, the static one), from the same seed."""
    torch.manual_seed(0)
    whole = make()
    torch.manual_seed(0)
    return whole, static_network(make(), cut_at)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("cut_at", [1, 2, 3, None])
def test_it_starts_as_that_exit_of_the_whole_network(make, cut_at):
    whole, static = pair(make, cut_at)
    assert (static.num_exits, static.training) == (1, True)
    assert all(module.training for module in static.modules())
    x = images(whole, 4)
    with torch.no_grad():
        assert torch.equal(static(x)[0], whole(x)[(cut_at or 3) - 1])


@pytest.mark.parametrize("make", [small_msdnet, small_ranet])
@pytest.mark.parametrize("cut_at", [1, 2, 3])
def test_it_holds_what_its_exit_depends_on_and_nothing_else(make, cut_at):
    whole, static = pair(make, cut_at)
    x = images(whole, 2)

    def depends(net: MultiExitNet, k: int) -> list[int]:
        state = net.start(x)
        for stage in net.stages[: k + 1]:
            state = stage.body(state)
        gradients = torch.autograd.grad(
            net.stages[k].head(state).sum(), list(net.parameters()), allow_unused=True
        )
        return [g.numel() for g in gradients if g is not None]

    sizes = [p.numel() for p in static.parameters()]
    assert depends(static, 0) == sizes == depends(whole, cut_at - 1)
    held = sum(isinstance(m, nn.BatchNorm2d) for m in static.modules())
    assert held == sum("running_mean" in name for name, _ in static.named_buffers())


@pytest.mark.parametrize("make", [small_msdnet, small_ranet])
def test_its_cost_is_the_exits_without_the_earlier_heads(make):
    whole = measure_costs(make())
    first = measure_costs(static_network(make(), 1))
    last = measure_costs(static_network(make(), None))
    assert first.macs_K == whole.macs_K[:1]
    heads = 0

    def count(module: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal heads
        if isinstance(module, nn.Conv2d):
            heads += module.weight.numel() * output.shape[2] * output.shape[3]
        elif isinstance(module, nn.Linear):
            heads += module.weight.numel()

    net = make().eval()
    for stage in net.stages[:-1]:
        for module in stage.classifier.modules():
            module.register_forward_hook(count)
    with torch.no_grad():
        net(images(net, 1))
    assert last.macs_K == (whole.macs_K[-1] - heads,)
    assert len(last.params_K) == 1


class Functional(ChainStage):
    """Has a module that it reads the weight of, and never calls."""

    def __init__(self, seed: int, shared: nn.Linear) -> None:
        super().__init__(seed)
        self.scale = shared

    def head(self, state: State) -> torch.Tensor:
        return super().head(state) * self.scale.weight


def test_modules_that_are_shared_or_only_read_stay():
    shared = nn.Linear(1, 1).double()
    net = MultiExitNet(
        [Functional(0, shared), Functional(1, shared)],
        name="functional", num_classes=1, input_shape=(1, 1, 1), arguments={},
    )  # fmt: skip
    x = images(net, 2)
    expected_BC = net(x)[1].detach()
    assert torch.equal(static_network(net, None)(x)[0], expected_BC)


@pytest.mark.parametrize(
    "settings",
    [
        MSDNetSettings(exits=3),
        RANetSettings(),
        BackboneSettings(name="torchvision:resnet18", exits=3),
    ],
    ids=lambda s: s.name,
)
def test_settings_ask_for_it(settings: NetworkSettings):
    def build(**changes: object) -> MultiExitNet:
        return build_model(settings.model_copy(update=changes), num_classes=10, image_size=32)

    whole, static = build(), build(static=True)
    assert static.num_exits == 1
    assert build(static=True, cut_at=2).architecture() != static.architecture()
    assert build(static=True, cut_at=whole.num_exits).architecture() == static.architecture()
    more = settings.model_copy(update={"exits": 4})
    if "exits" in type(settings).model_fields:
        other = build_model(
            more.model_copy(update={"static": True, "cut_at": 2}), num_classes=10, image_size=32
        )
        assert other.architecture() != build(static=True, cut_at=2).architecture()
    with pytest.raises(SettingsError, match=r"model.cut_at = 9: the network has [36] exits"):
        build(static=True, cut_at=9)


def test_on_the_meta_device_too():
    with torch.device("meta"):
        net = build_model(MSDNetSettings(static=True, cut_at=2), num_classes=10, image_size=32)
    assert measure_costs(net).macs_K[0] > 0
