"""Every architecture keeps the contract, and whatever breaks it is found and named."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from cut_networks import backbone
from small_nets import small_msdnet, small_ranet
from torch import Tensor, nn

from hdkd_cli.errors import NetworkError, SettingsError
from hdkd_cli.models import MultiExitNet, Stage, State, build_model
from hdkd_cli.models.architectures import ARCHITECTURES
from hdkd_cli.models.static import static_network
from hdkd_cli.settings.networks import CustomModelSettings
from hdkd_cli.testing import check_network, inspect_network

WIDTH = 4


class Plain(Stage):
    """A convolution with normalisation, and a head on its mean."""

    head_keys: tuple[str, ...] = ("x",)

    def __init__(self, first: bool = False) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.Conv2d(3 if first else WIDTH, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU()
        )
        self.read = nn.Linear(WIDTH, 3)

    def body(self, state: State) -> State:
        return {"x": self.layer(state.get("x", state.get("image")))}

    def head(self, state: State) -> Tensor:
        return self.read(state["x"].mean((2, 3)))


class Own(MultiExitNet):
    """Three stages, of which the second may be another one."""

    def __init__(self, second: type[Plain] = Plain) -> None:
        stages = [Plain(first=True), second(), Plain()]
        super().__init__(stages, name="own", num_classes=3, input_shape=(3, 8, 8), arguments={})


EXAMPLES = {
    "msdnet": lambda: small_msdnet(growth_factors=(1, 2), bottleneck_factors=(1, 2), image_size=12),
    "ranet": small_ranet,
    "torchvision:MODEL": lambda: backbone("torchvision:tiny_convnext"),
    "package.module:factory": Own,
}


def test_there_is_an_example_of_every_architecture():
    assert EXAMPLES.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_architecture_keeps_the_contract(name):
    torch.manual_seed(0)
    net = EXAMPLES[name]().train()
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    report = check_network(net)
    assert (report.network, report.num_exits) == (net.name, net.num_exits)
    assert len(report.checks) == 11
    assert net.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


def test_networks_with_dropout_or_one_exit_keep_it_too():
    class Drops(Plain):
        def body(self, state: State) -> State:
            return {"x": nn.functional.dropout(super().body(state)["x"], 0.5, self.training)}

    check_network(Own(Drops))
    check_network(static_network(Own(), 2))


class Flipped(Own):
    def forward(self, images_BCHW: Tensor) -> Tensor:
        return super().forward(images_BCHW).flip(-1)


class WritesInBody(Plain):
    def body(self, state: State) -> State:
        return {"x": self.layer(state["x"].mul_(2))}


class AddsInHead(Plain):
    def head(self, state: State) -> Tensor:
        state["seen"] = state["x"]
        return super().head(state)


class MixesSamples(Plain):
    def body(self, state: State) -> State:
        x = super().body(state)["x"]
        return {"x": x - x.mean(0)}


class Transposed(Plain):
    def body(self, state: State) -> State:
        return super().body(state) | {"side": torch.zeros(7)}


class WrongKey(Plain):
    head_keys = ("y",)


class BlindToForwardMode(Plain):
    """Its own rule for the derivative counts double in reverse mode alone."""

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def setup_context(ctx, inputs, output) -> None:
            pass

        @staticmethod
        def backward(_ctx, gradient: Tensor) -> Tensor:
            return 2 * gradient

        @staticmethod
        def jvp(_ctx, tangent: Tensor) -> Tensor:
            return 1 * tangent

    def body(self, state: State) -> State:
        return {"x": self.Twice.apply(super().body(state)["x"])}


class CostsNothing(Plain):
    def __init__(self) -> None:
        super().__init__()
        del self.layer, self.read

    def body(self, state: State) -> State:
        return state

    def head(self, state: State) -> Tensor:
        return state["x"].mean((2, 3))[:, :3]


class LooksAtValues(Plain):
    def body(self, state: State) -> State:
        x = super().body(state)["x"]
        return {"x": x if float(x.sum()) > 0 else -x}


@pytest.mark.parametrize(
    ("second", "found", "said"),
    [
        (WritesInBody, "stages leave their input alone", "stage 2: body writes into 'x'"),
        (AddsInHead, "stages leave their input alone", "stage 2: head adds to the state"),
        (MixesSamples, "any subset of samples narrows", "before stage 1, exit 2 says something"),
        (Transposed, "a state holds named tensors, batch first", "stage 2: its state's 'side'"),
        (WrongKey, "a state holds named tensors, batch first", "head_keys names 'y'"),
        (BlindToForwardMode, "forward mode equals reverse mode", "exit 2: "),
        (CostsNothing, "costs add up and grow", "macs do not grow at exit 2"),
        (LooksAtValues, "an export computes the same", "stage 2 cannot be exported"),
    ],
)
def test_what_breaks_the_contract_is_found(second, found, said):
    torch.manual_seed(0)
    with pytest.raises(NetworkError) as refused:
        check_network(Own(second))
    _, *problems = str(refused.value).splitlines()
    assert any(line.startswith(f"  {found}: ") and said in line for line in problems)


def test_a_parameter_of_two_stages_is_found():
    net = Own()
    net.stages[2].layer = net.stages[1].layer
    problems = {check.name: check.problem for check in inspect_network(net).failed}
    wanted = "stage 3: its layer.0.weight is the layer.0.weight of stage 2 too"
    assert problems["no two stages share a parameter"] == wanted


def test_parameters_outside_the_stages_are_found():
    net = Own()
    net.prefix = nn.Linear(2, 2)
    (check,) = inspect_network(net).failed
    assert "6 of" in check.problem
    assert "belong to no exit" in check.problem


def test_early_exit_that_says_something_else_is_found(monkeypatch):
    from hdkd_cli.inference import early_exit

    monkeypatch.setattr(early_exit, "narrow", lambda state, index: {
        key: tensor[index].flip(0) for key, tensor in state.items()
    })  # fmt: skip
    torch.manual_seed(0)
    (check,) = inspect_network(Own()).failed
    assert check.name == "early exit equals the simulation"


@pytest.fixture
def users_nets(monkeypatch):
    module = ModuleType("users_nets")

    def build(kind):
        return lambda **_: kind()

    module.good, module.flipped = build(Own), build(Flipped)
    module.stumbles = build(lambda: Own(WrongShape))
    module.mixes = build(lambda: Own(MixesSamples))
    monkeypatch.setitem(sys.modules, "users_nets", module)


class WrongShape(Plain):
    def head(self, state: State) -> Tensor:
        return self.read(state["x"])


@pytest.mark.usefixtures("users_nets")
@pytest.mark.parametrize(
    ("name", "said"),
    [("flipped", "forward is not its stages"), ("stumbles", "cannot run on noise: RuntimeError")],
)
def test_a_network_whose_forward_is_not_its_stages_is_refused_when_built(name, said):
    settings = CustomModelSettings(name=f"users_nets:{name}", exits=3)
    with pytest.raises(SettingsError, match=said) as refused:
        build_model(settings, num_classes=3, image_size=8)
    assert "hdkd doctor --network" in refused.value.hint


@pytest.mark.usefixtures("users_nets")
def test_a_network_on_the_meta_device_is_built():
    settings = CustomModelSettings(name="users_nets:flipped", exits=3)
    with torch.device("meta"):
        assert build_model(settings, num_classes=3, image_size=8).num_exits == 3
