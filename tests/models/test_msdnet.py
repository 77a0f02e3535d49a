"""MSDNet against an eager reference, brute-force dependence, and the published widths."""

from __future__ import annotations

import copy
import itertools
import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_nets import SMALL, images, msdnet_arguments, small_msdnet
from torch import Tensor, nn

from hdkd_cli.errors import SettingsError
from hdkd_cli.models import MSDNet

few = settings(max_examples=12, deadline=None)


def exit_layers(arguments: dict[str, Any]) -> list[int]:
    """The layer after which each exit stands."""
    depths, depth = [], arguments["base"]
    for i in range(arguments["exits"]):
        if i > 0:
            even = arguments["step_mode"] == "even"
            depth += arguments["step"] if even else arguments["step"] * i + 1
        depths.append(depth)
    return depths


def eager_logits(net: MSDNet, arguments: dict[str, Any], images_BCHW: Tensor) -> Tensor:
    """All scales, layer by layer, as the reference implementations run (absent cells: None)."""
    cells = {(c.layer.number, c.scale): c for stage in net.stages for c in stage.cells}
    depths = exit_layers(arguments)
    S, L = len(arguments["growth_factors"]), depths[-1]
    features: list[Tensor | None] = []
    for block in net.stages[0].stem:
        features.append(block(features[-1] if features else images_BCHW))
    logits = []
    for number in range(1, L + 1):
        if arguments["prune"] == "max":
            interval = math.ceil(L / S)
            scales_in = S - math.floor(max(0, number - 2) / interval)
            scales_out = S - math.floor((number - 1) / interval)
            transition = scales_in > scales_out
        else:
            scales_in = min(S, L - number + 2)
            scales_out = min(S, L - number + 1)
            transition = number in (math.floor(L / 3), math.floor(2 * L / 3))
        new: list[Tensor | None] = [None] * S
        for scale in range(S - scales_out, S):
            if (cell := cells.get((number, scale))) is None:
                continue
            parts = [features[scale]]
            if scale > S - scales_out or scales_in > scales_out:
                parts.append(cell.down(features[scale - 1]))
            else:
                assert cell.down is None
            parts.append(cell.same(features[scale]))
            new[scale] = torch.cat(parts, 1)
            assert (cell.transition is not None) == transition
            if transition:
                new[scale] = cell.transition(new[scale])
        features = new
        if number in depths:
            logits.append(net.stages[depths.index(number)].classifier(features[-1]))
    return torch.stack(logits)


@few
@given(arguments=msdnet_arguments(), train=st.booleans())
def test_lazy_stages_compute_what_the_eager_network_computes(arguments, train):
    torch.manual_seed(0)
    net = small_msdnet(**arguments).train(train)
    reference = copy.deepcopy(net)
    x = images(net, 3)
    with torch.no_grad():
        logits_KBC = net(x)
        expected_KBC = eager_logits(reference, arguments, x)
    assert logits_KBC.shape == (arguments["exits"], 3, arguments["num_classes"])
    torch.testing.assert_close(logits_KBC, expected_KBC, rtol=1e-11, atol=1e-11)
    for (name, buffer), other in zip(net.named_buffers(), reference.buffers(), strict=True):
        assert torch.equal(buffer, other), name  # BatchNorm saw every batch once


def widths_of(net: MSDNet) -> list[int]:
    """Channels of the finest-factor scale after each layer."""
    layers = sorted({cell.layer for stage in net.stages for cell in stage.cells})
    return [layer.width_out for layer in layers]


def test_widths_are_the_published_ones():
    cifar = {
        "exits": 7, "base": 4, "step": 2, "channels": 16, "growth": 6, "image_size": 32,
        "growth_factors": (1, 2, 4), "bottleneck_factors": (1, 2, 4),
    }  # fmt: skip
    imagenet = {
        "exits": 5, "base": 4, "step": 4, "channels": 32, "growth": 16, "image_size": 224,
        "growth_factors": (1, 2, 4, 4), "bottleneck_factors": (1, 2, 4, 4), "stem": "imagenet",
    }  # fmt: skip
    with torch.device("meta"):
        nets = MSDNet(**SMALL | cifar), MSDNet(**SMALL | imagenet)
    assert widths_of(nets[0]) == [
        22, 28, 34, 40, 46, 52, 29, 35, 41, 47, 53, 59, 32, 38, 44, 50,
    ]  # fmt: skip
    assert widths_of(nets[1]) == [
        48, 64, 80, 96, 112, 64, 80, 96, 112, 128, 72, 88, 104, 120, 136, 76, 92, 108, 124, 140,
    ]  # fmt: skip


def test_tensors_have_the_planned_widths():
    net = small_msdnet()
    scales = net.start(images(net, 2))
    for stage in net.stages:
        scales = stage.body(scales)
        layer, factor = stage.cells[-1].layer, SMALL["growth_factors"][-1]
        assert scales[stage.head_keys[0]].shape[1] == layer.width_out * factor


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_he_initialisation_reaches_every_convolution(stem):
    wide = {"channels": 32, "growth": 32, "stem": stem, "image_size": 20 if stem == "cifar" else 80}
    torch.manual_seed(0)
    he, framework = small_msdnet(init="he", **wide), small_msdnet(init="torch", **wide)
    convolutions = 0
    for (name, module), other in zip(he.named_modules(), framework.modules(), strict=True):
        if isinstance(module, nn.Conv2d):
            convolutions += 1
            k, (out, into) = module.kernel_size[0], module.weight.shape[:2]
            fan_out = math.sqrt(2 / (k * k * out))
            fan_in = math.sqrt(1 / (3 * k * k * into))  # uniform on ±sqrt(1 / fan_in)
            tolerance = 4 / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(fan_out, rel=tolerance), name
            assert other.weight.std().item() == pytest.approx(fan_in, rel=tolerance), name
            assert module.weight.abs().max() > 1.8 * fan_out, name  # no uniform reaches that
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            assert module.bias.count_nonzero() == 0, name
            assert other.bias.count_nonzero() > 0, name
        if isinstance(module, nn.BatchNorm2d):
            assert torch.all(module.weight == 1), name
            assert torch.all(module.bias == 0), name
    assert convolutions == sum(isinstance(m, nn.Conv2d) for m in he.modules()) > 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 16}, "turn 16 pixels into 4 at the coarsest scale"),
        ({"image_size": 64}, "turn 64 pixels into 16 at the coarsest scale"),
        ({"stem": "imagenet"}, "imagenet stem turn 20 pixels into 2"),
        ({"growth_factors": (), "bottleneck_factors": ()}, "model.growth_factors: is empty"),
        ({"growth": 3, "growth_factors": (1, 3, 2)}, "gives 9 new channels"),
        ({"growth": 1, "growth_factors": (1, 1, 1)}, "gives 1 new channels"),
        ({"reduction": 0.05}, "leaves none of 16 channels after layer 3"),
        (
            {"prune": "min", "exits": 1, "base": 1},
            "'min' needs at least 2 layers for 3 scales, there are 1",
        ),
    ],
)
def test_impossible_shapes_are_refused(changes, message):
    with pytest.raises(SettingsError, match=message):
        small_msdnet(**changes)


def test_all_reasons_are_given_at_once():
    with pytest.raises(SettingsError) as refusal:
        small_msdnet(image_size=64, growth=1, growth_factors=(1, 3, 3), reduction=0.1)
    assert [line.split(":")[0] for line in str(refusal.value).splitlines()] == [
        "model.growth",
        "model.reduction",
        "model.growth_factors",
    ]


@pytest.mark.parametrize("image_size", [1, 8, 9, 10, 23, 24, 25, 32, 33, 34, 95, 96, 97])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_image_sizes_are_refused_exactly_when_the_network_could_not_run(stem, image_size):
    try:
        with torch.device("meta"):
            net = MSDNet(
                **SMALL
                | {
                    "stem": stem,
                    "image_size": image_size,
                    "growth_factors": (1, 2),
                    "bottleneck_factors": (1, 2),
                }
            )
            assert net(torch.empty(2, 3, image_size, image_size)).shape == (3, 2, 4)
            accepted = True
    except SettingsError:
        accepted = False
    side = torch.empty(1, 1, image_size, image_size, device="meta")
    if stem == "imagenet":
        side = nn.Conv2d(1, 1, 7, 2, 3, device="meta")(side)
        side = nn.MaxPool2d(3, 2, 1)(side)
    for _ in range(3):  # one scale and the two convolutions of a head
        side = nn.Conv2d(1, 1, 3, 2, 1, device="meta")(side)
    assert accepted == (side.shape[-1] // 2 == 1)


def test_architecture_is_canonical_and_tells_networks_apart():
    changes: dict[str, Any] = {
        "exits": 2, "base": 3, "step": 2, "step_mode": "linear", "channels": 5, "growth": 6,
        "growth_factors": [1, 2, 4], "bottleneck_factors": [1, 1, 2], "prune": "min",
        "reduction": 0.7, "num_classes": 5, "image_size": 24,
    }  # fmt: skip
    base = small_msdnet().architecture()
    texts = [small_msdnet(**{key: value}).architecture() for key, value in changes.items()]
    assert all(a != b for a, b in itertools.combinations([base, *texts], 2))
    assert small_msdnet(init="he").architecture() == base  # other weights, not other shapes
    assert small_msdnet(growth_factors=[1, 2, 2]).architecture() == base
    assert json.dumps(json.loads(base), sort_keys=True, separators=(",", ":")) == base
    assert not set(SMALL) - {"init"} - _keys(json.loads(base)) - {"num_classes", "image_size"}


def _keys(record: dict[str, Any]) -> set[str]:
    return set(record) | set(record["arguments"])
