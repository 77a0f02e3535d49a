"""Costs against the published numbers, hand-made formulas and torch's own counter."""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from small_nets import images, small_msdnet
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hdkd_cli.models import ExitCosts, MSDNet, MultiExitNet, RANet, Stage, State, measure_costs

DATA = Path(__file__).parent / "data"
PUBLISHED = json.loads((DATA / "msdnet_costs.json").read_text())
NETWORKS = [name for name in PUBLISHED if not name.startswith("_")]
RANETS = json.loads((DATA / "ranet_costs.json").read_text())


def test_there_are_twelve_published_networks():
    assert len(NETWORKS) == 8
    assert len(RANETS) == 5  # with `_about`


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_are_the_published_ones(name):
    row = PUBLISHED[name]
    with torch.device("meta"):
        net = MSDNet(**row["arguments"], init="torch")
    assert measure_costs(net) == ExitCosts(
        params_K=tuple(row["params"]),
        macs_K=tuple(row["macs_lazy"]),
        macs_eager_K=tuple(row["macs_eager"]),
        ops_K=tuple(row["ops"]),
    )


@pytest.mark.parametrize("name", [name for name in RANETS if not name.startswith("_")])
def test_costs_of_ranet_are_the_published_ones(name):
    row = RANETS[name]
    with torch.device("meta"):
        net = RANet(**row["arguments"], init="torch")
    assert measure_costs(net) == ExitCosts(
        params_K=tuple(row["params"]),
        macs_K=tuple(row["macs"]),
        macs_eager_K=tuple(row["macs"]),
        ops_K=tuple(row["ops"]),
    )


def test_the_device_does_not_matter():
    name = "cifar100-msdnet5-small"
    with torch.device("meta"):
        expected = measure_costs(MSDNet(**PUBLISHED[name]["arguments"], init="torch"))
    assert measure_costs(MSDNet(**PUBLISHED[name]["arguments"], init="torch")) == expected


@pytest.mark.parametrize("prune", ["max", "min"])
def test_macs_are_what_forward_executes(prune):
    net = small_msdnet(prune=prune)
    by_hand = 0

    def count(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        nonlocal by_hand
        if isinstance(module, nn.Conv2d):
            by_hand += module.weight.numel() * output.shape[2] * output.shape[3]
        elif isinstance(module, nn.Linear):
            by_hand += module.weight.numel()

    costs = measure_costs(net)
    for module in net.modules():
        module.register_forward_hook(count)
    net.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(images(net, 1))
    assert costs.macs_K[-1] == by_hand == counter.get_total_flops() // 2
    assert costs.params_K[-1] == sum(p.numel() for p in net.parameters())
    assert costs.macs_eager_K[-1] == costs.macs_K[-1]
    assert all(a <= b for a, b in zip(costs.macs_K, costs.macs_eager_K, strict=True))


def test_measuring_leaves_no_trace():
    net = small_msdnet()
    net.train()
    net.stages[1].eval()
    modes = [module.training for module in net.modules()]
    tensors = {name: x.clone() for name, x in net.state_dict().items()}
    fastpath = torch.backends.mha.get_fastpath_enabled()
    rng = torch.get_rng_state()
    first = measure_costs(net)
    assert measure_costs(net) == first
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(tensors[name], x) for name, x in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert torch.backends.mha.get_fastpath_enabled() == fastpath
    assert torch.equal(torch.get_rng_state(), rng)


class AttentionStage(Stage):
    """Tokens of width 8: self-attention and a pooled, shared classifier."""

    head_keys = ("tokens",)

    def __init__(self, classifier: nn.Linear) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.classifier = classifier

    def body(self, state: State) -> State:
        x = state["tokens"] if "tokens" in state else state["image"].flatten(2).transpose(1, 2)
        return {"tokens": x + self.attention(x, x, x, need_weights=False)[0]}

    def head(self, state: State) -> Tensor:
        logits: Tensor = self.classifier(state["tokens"].mean(1))
        return logits


def test_attention_counts_its_projections_and_both_products():
    shared = nn.Linear(8, 5)
    net = MultiExitNet(
        [AttentionStage(shared), AttentionStage(shared)],
        name="attention",
        num_classes=5,
        input_shape=(8, 3, 2),
        arguments={},
    )
    tokens = 6
    attention = 4 * tokens * 8 * 8 + 2 * tokens * tokens * 8
    macs_K = tuple(accumulate([attention + 40] * 2))
    parameters = 4 * (8 * 8 + 8)
    assert measure_costs(net) == ExitCosts(
        params_K=(parameters + 45, 2 * parameters + 45),  # a shared head is stored once
        macs_K=macs_K,
        macs_eager_K=macs_K,
        ops_K=(macs_K[0] + 5, macs_K[1] + 10),
    )


class PoolStage(Stage):
    """One convolution, everything else the ``ops`` convention counts, and what it does not."""

    head_keys = ("x",)

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d((2, 4), stride=2),
            nn.AvgPool2d(3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.biased, self.plain = nn.Linear(4, 6), nn.Linear(6, 2, bias=False)

    def body(self, state: State) -> State:
        return {"x": self.features(state["image"])}

    def head(self, state: State) -> Tensor:
        logits: Tensor = self.plain(self.biased(state["x"]))
        return logits


def test_ops_add_activations_pooling_and_linear_biases():
    net = MultiExitNet(
        [PoolStage()], name="pool", num_classes=2, input_shape=(3, 8, 8), arguments={}
    )
    macs = 27 * 4 * 64 + 24 + 12
    relu, max_pool, avg_pool, bias = 4 * 64, 4 * (4 * 3) * 8, 4 * 1 * 9, 6
    assert measure_costs(net) == ExitCosts(
        params_K=(27 * 4 + 4 + 8 + 30 + 12,),
        macs_K=(macs,),
        macs_eager_K=(macs,),
        ops_K=(macs + relu + max_pool + avg_pool + bias,),
    )
