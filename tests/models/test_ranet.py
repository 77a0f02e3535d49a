"""RANet against the description's widths, brute-force dependence, and the rules of the contract."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from small_nets import SMALL_RANET, images, ranet_arguments, small_ranet
from torch import nn

from hdkd_cli.errors import SettingsError
from hdkd_cli.inference.programs import trace_stages
from hdkd_cli.models import RANet

# torch itself says so when it loads its forward-mode formulas
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

few = settings(max_examples=12, deadline=None)


@few
@given(arguments=ranet_arguments())
def test_an_exit_follows_each_dense_block(arguments):
    net = small_ranet(**arguments)
    assert net.num_exits == arguments["blocks"] + arguments["block_step"] * (
        len(arguments["scales"]) - 1
    )


def test_widths_sides_and_halvings_are_the_published_ones():
    with torch.device("meta"):
        net = RANet(
            **SMALL_RANET
            | {
                "scales": (1, 2, 3, 3), "growth_factors": (4, 2, 1, 1), "step": 4,
                "bottleneck_factors": (4, 2, 1, 1), "blocks": 2, "block_step": 2,
                "channels": 16, "growth": 6, "image_size": 32,
            }
        )  # fmt: skip
        state, sides = net.start(torch.empty(1, 3, 32, 32)), []
        for stage in net.stages:
            state = stage.body(state)
            sides.append(state[stage.head_keys[0]].shape[-1])
    blocks = [block.plan for stage in net.stages for block in stage.blocks]
    of_net = [[b for b in blocks if b.net == i] for i in (1, 2, 3, 4)]
    assert [[b.width_out for b in net] for net in of_net] == [
        [160, 256],
        [100, 92, 140, 188],
        [50, 46, 87, 69, 93, 117],
        [50, 46, 87, 138, 101, 156, 180, 204],
    ]
    assert [[b.number for b in net if b.down] for net in of_net] == [[], [2], [2, 4], [4, 6]]
    assert [[b.number for b in net if b.transition] for net in of_net] == [[], [2], [2, 4], [2, 5]]
    assert sides == [8] * 8


@pytest.mark.parametrize("mode", ["state", "head"])
def test_gradient_equilibrium_reaches_what_later_sub_networks_read(mode):
    """A single exit's gradient has the factors of all exits on its way: here, only the last."""
    net = small_ranet(blocks=2, block_step=2, scales=(1, 2), growth_factors=(1, 1),
                      bottleneck_factors=(1, 1))  # fmt: skip
    x = images(net, 3)
    first = [p for block in net.stages[0].blocks for p in block.parameters()]
    plain = torch.autograd.grad(net(x)[3].sum(), first)
    net.gradient_equilibrium = mode
    scaled = torch.autograd.grad(net(x)[3].sum(), first)
    # Every way from the first block to the last exit leaves it through what its exit's head reads,
    # 1/4 · 3 there; `state` goes on with 1/3 · 2, 1/2 · 1 and 1 at the exits that follow.
    if mode == "state":
        for a, b in zip(scaled, plain, strict=True):
            torch.testing.assert_close(a, b / 4, rtol=1e-9, atol=1e-12)
    else:
        assert any(not torch.allclose(a, b) for a, b in zip(scaled, plain, strict=True))


def test_stages_are_traced_for_any_batch():
    net = small_ranet().float().eval()
    x = images(net, 5).float()
    state = net.start(x)
    with torch.no_grad():
        for stage, program in zip(net.stages, trace_stages(net), strict=True):
            logits_BC, *_ = program.graph.module()(*(state[name] for name in program.reads))
            state = stage.body(state)
            torch.testing.assert_close(logits_BC, stage.head(state), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("init", ["he", "torch"])
def test_initialisation_is_the_one_asked_for(init):
    torch.manual_seed(0)
    net = small_ranet(init=init, channels=32, growth=32)
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            k, (out, into) = module.kernel_size[0], module.weight.shape[:2]
            expected = (2 / (k * k * out) if init == "he" else 1 / (3 * k * k * into)) ** 0.5
            tolerance = 4 / (2 * module.weight.numel()) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=tolerance), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 8}, "turn 8 pixels into 4 at the lowest"),
        ({"image_size": 26}, "turn 26 pixels into 13 at the lowest"),
        ({"scales": (), "growth_factors": (), "bottleneck_factors": ()}, "model.scales: is empty"),
        ({"scales": (2, 2, 3)}, "must begin with 1"),
        ({"scales": (1, 2, 4)}, "the one before it or one more"),
        ({"scales": (1, 2, 1)}, "the one before it or one more"),
        ({"compress": 0.1}, "model.compress: 0.1 of the 4 channels"),
        ({"reduction": 0.01}, "model.reduction: 0.01 leaves none of"),
    ],
)
def test_impossible_shapes_are_refused(changes, message):
    with pytest.raises(SettingsError, match=message):
        small_ranet(**changes)


def test_architecture_is_canonical_and_tells_networks_apart():
    changes: dict[str, Any] = {
        "scales": [1, 1, 2], "growth_factors": [2, 1, 1], "bottleneck_factors": [1, 1, 1],
        "blocks": 2, "block_step": 2, "step": 3, "step_mode": "linear", "channels": 5,
        "growth": 6, "compress": 0.5, "reduction": 0.7, "num_classes": 5, "image_size": 12,
    }  # fmt: skip
    base = small_ranet().architecture()
    texts = [small_ranet(**{key: value}).architecture() for key, value in changes.items()]
    assert all(a != b for a, b in itertools.combinations([base, *texts], 2))
    assert small_ranet(init="he").architecture() == base  # other weights, not other shapes
    assert json.dumps(json.loads(base), sort_keys=True, separators=(",", ":")) == base
