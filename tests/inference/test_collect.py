"""Collecting scores: the network's own logits, and a network left as it was found."""

import numpy as np
import pytest
import torch
from torch import nn

from hdkd_cli.errors import ScoresError
from hdkd_cli.inference.collect import collect
from hdkd_cli.models.contract import MultiExitNet, Stage
from hdkd_cli.models.cost import measure_costs


class NoisyStage(Stage):
    """BatchNorm and dropout: both answer differently in training mode."""

    head_keys = ("image",)

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
        self.read = nn.Linear(6, 4)

    def body(self, state):
        return {"image": self.mix(state["image"].flatten(1))}

    def head(self, state):
        return self.read(state["image"])


@pytest.fixture
def net():
    torch.manual_seed(0)
    return MultiExitNet(
        [NoisyStage(), NoisyStage()],
        name="noisy",
        num_classes=4,
        input_shape=(6, 1, 1),
        arguments={},
    )


@pytest.fixture
def batches():
    torch.manual_seed(1)
    return [(torch.randn(n, 6, 1, 1), torch.randint(0, 4, (n,))) for n in (5, 5, 2)]


def test_logits_are_those_of_evaluation_mode(net, batches):
    net.train()
    scores = collect(net, batches, measure_costs(net), {"split": "val"})
    expected = net.eval()(torch.cat([images for images, _ in batches])).detach()
    torch.testing.assert_close(torch.from_numpy(scores.logits_KNC), expected)
    assert scores.labels_N.tolist() == torch.cat([labels for _, labels in batches]).tolist()
    costs = measure_costs(net)
    assert (scores.macs_K, scores.macs_eager_K) == (costs.macs_K, costs.macs_eager_K)
    assert (scores.ops_K, scores.params_K) == (costs.ops_K, costs.params_K)
    assert scores.meta == {"split": "val", "precision": "fp32"}


def test_every_module_keeps_its_mode_and_its_statistics(net, batches):
    net.train()
    net.stages[0].mix[1].eval()  # a frozen BatchNorm in a network that trains
    modes = [module.training for module in net.modules()]
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    collect(net, batches, measure_costs(net), {})
    assert [module.training for module in net.modules()] == modes
    assert all(tensor.equal(state[name]) for name, tensor in net.state_dict().items())


def test_the_mode_is_restored_after_an_error(net):
    net.train()
    costs = measure_costs(net)
    with pytest.raises(RuntimeError):
        collect(net, [(torch.zeros(2, 5, 1, 1), torch.zeros(2).long())], costs, {})
    assert all(module.training for module in net.modules())


def test_autocast_is_recorded_and_logits_stay_float32(net, batches):
    exact = collect(net, batches, measure_costs(net), {})
    rough = collect(net, batches, measure_costs(net), {}, autocast=torch.bfloat16)
    assert rough.meta["precision"] == "bf16"
    assert rough.logits_KNC.dtype == np.float32
    assert not np.array_equal(rough.logits_KNC, exact.logits_KNC)
    np.testing.assert_allclose(rough.logits_KNC, exact.logits_KNC, rtol=0.1, atol=0.1)


def test_nothing_to_collect(net):
    with pytest.raises(ScoresError, match="no images"):
        collect(net, [], measure_costs(net), {})


def test_a_diverged_network_is_named(net, batches):
    costs = measure_costs(net)
    with torch.no_grad():
        net.stages[1].read.bias[0] = float("nan")
    with pytest.raises(ScoresError, match="exit 2: 12 of 48 logits"):
        collect(net, batches, costs, {})
