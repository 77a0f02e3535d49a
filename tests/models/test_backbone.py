"""Any classifier with exits: cut and uncut are the same network, and all that is done to it works.

Property by property, over one small model of each kind: maps, maps with channels last, tokens.
"""

from __future__ import annotations

import importlib.util
import re

import pytest
import torch
from cut_networks import backbone, uncut
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hdkd_cli.errors import SettingsError
from hdkd_cli.evaluation.policy import Combination, ExitPolicy, FittedOn, OperatingPoint
from hdkd_cli.inference.early_exit import EarlyExit
from hdkd_cli.inference.programs import trace_stages
from hdkd_cli.method.hypergradient import StepInputs, hypergradient, validation_gradient
from hdkd_cli.method.terms import Terms
from hdkd_cli.method.validation import BalancedValidation
from hdkd_cli.models import measure_costs
from hdkd_cli.models.backbone.heads import MapLastHead, TokenHead
from hdkd_cli.models.cost import countable
from hdkd_cli.settings.networks import BackboneSettings

needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="timm is not installed: hdkd[timm]"
)
TIMM = [
    pytest.param("timm:test_vit3", marks=needs_timm),
    pytest.param("timm:test_efficientnet", marks=needs_timm),
    pytest.param("timm:test_convnext", marks=needs_timm),
]
SMALL = [
    "torchvision:tiny_vit",
    "torchvision:tiny_swin",
    "torchvision:tiny_convnext",
    "torchvision:mobilenet_v3_small",
    *TIMM,
]


def noise(size: int = 32, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "name", [*SMALL, "torchvision:resnet18", "torchvision:densenet121", "torchvision:googlenet"]
)
def test_the_last_exit_says_what_the_uncut_model_says(name):
    with torch.no_grad():
        logits_KBC = backbone(name)(noise())
        assert logits_KBC.shape == (4, 3, 5)
        assert torch.equal(logits_KBC[-1], uncut(name)(noise()))


@pytest.mark.parametrize("name", SMALL[:4])
def test_exits_are_at_about_equal_shares_of_the_cost(name):
    macs_K = measure_costs(backbone(name)).macs_K
    assert list(macs_K) == sorted(set(macs_K))
    for k, macs in enumerate(macs_K, 1):
        assert macs / macs_K[-1] == pytest.approx(k / 4, abs=0.16)


@pytest.mark.parametrize("name", ["torchvision:tiny_vit", "torchvision:tiny_swin"])
def test_blocks_follow_train_and_eval(name):
    """Dropout and stochastic depth inside a block are not fixed as they were when it was cut."""
    net = backbone(name, drop_path=0.5) if "swin" in name else backbone(name)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    torch.manual_seed(0)
    first, second = (net.train()(noise()) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(net.eval()(noise()), net(noise()))


@pytest.mark.parametrize("name", SMALL)
def test_forward_mode_agrees_with_reverse_mode(name):
    """The hypergradient is the derivative by each term's weight: −⟨v, ∇ℓ_t⟩."""
    net = backbone(name, exits=2).double()
    terms = Terms(2, "later", 3.0)
    batch = (noise().double(), torch.tensor([0, 1, 2]))
    inputs = StepInputs.of(net)
    upper = validation_gradient(net, BalancedValidation(2, 0.5, 0.9), batch)
    found_T = hypergradient(net, terms, inputs, upper.direction, [batch], nesterov_momentum=0.0)
    parameters = dict(net.named_parameters())
    for found, term in zip(found_T, terms(net(batch[0]), batch[1]), strict=True):
        gradients = torch.autograd.grad(
            term, list(parameters.values()), retain_graph=True, allow_unused=True
        )
        pairs = zip(parameters, gradients, strict=True)
        wanted = -sum((upper.direction[n] * g).sum() for n, g in pairs if g is not None)
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", [*SMALL[:3], *TIMM])
def test_leaving_early_is_what_the_scores_say(name):
    net = backbone(name, exits=3).double()
    images = noise(batch=12).double()
    with torch.no_grad():
        probabilities_KBC = net(images).softmax(-1)
    confidence_KB, prediction_KB = probabilities_KBC.max(-1)
    thresholds = tuple(confidence_KB.sort().values[:2, 5:7].mean(1).tolist())  # half of them go on
    policy = ExitPolicy(
        kind="geometric",
        confidence="max-prob",
        combination=Combination(kind="single", weights=((1, 0, 0), (0, 1, 0), (0, 0, 1))),
        temperatures=(1.0, 1.0, 1.0),
        points=(
            OperatingPoint(target_macs=None, thresholds=thresholds, val_macs=1, val_top1_pct=0),
        ),
        fitted_on=FittedOn(checkpoint_sha256="", split="val", samples=1),
    )
    exited = EarlyExit(net, policy)(images)
    stays_KB = torch.stack([confidence_KB[k] < t for k, t in enumerate(thresholds)])
    exit_B = stays_KB.cumprod(0).sum(0)
    assert exit_B.unique().numel() > 1
    assert exited.exit_B.tolist() == exit_B.tolist()
    assert exited.prediction_B.tolist() == prediction_KB.gather(0, exit_B[None])[0].tolist()


@pytest.mark.parametrize("name", SMALL[:4])
def test_every_stage_is_a_program_with_a_dynamic_batch(name):
    net = backbone(name, exits=2)
    first, last = trace_stages(net)
    assert (first.reads, first.writes, last.reads) == (("image",), ("features",), ("features",))
    with torch.no_grad():
        for batch in (1, 5):
            logits_BC, features = first.graph.module()(noise(batch=batch))
            found_KBC = torch.stack([logits_BC, last.graph.module()(features)[0]])
            torch.testing.assert_close(found_KBC, net(noise(batch=batch)), rtol=1e-4, atol=1e-5)


class TokenLate(nn.Module):
    """Its second block is handed a parameter, as CaiT's last ones are."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 1, 4))
        self.blocks = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))] * 2)
        self.joint = nn.Bilinear(4, 4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.joint(self.blocks(x), self.token.expand(len(x), 1, 4)[:, 0])


def test_counting_costs_does_not_stumble_over_a_parameter_that_a_block_is_given():
    net = TokenLate()
    with countable(net), FlopCounterMode(display=False) as counter:
        net(torch.zeros(2, 4))
    assert counter.get_total_flops() > 0
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_heads_go_by_the_kind_of_features():
    heads = {
        name: {type(stage.classifier) for stage in list(backbone(name).stages)[:-1]}
        for name in SMALL[:3]
    }
    assert heads == {
        "torchvision:tiny_vit": {TokenHead},
        "torchvision:tiny_swin": {MapLastHead},
        "torchvision:tiny_convnext": {nn.Sequential},
    }


def test_exits_where_blocks_are_named():
    net = backbone("torchvision:resnet18", exits=("layer1", "layer3.0"))
    assert net.num_exits == 3
    assert net.arguments["after"] == ["layer1", "layer3.0"]
    assert net.architecture() == backbone("torchvision:resnet18", exits=3).architecture()
    assert net.architecture() != backbone("torchvision:resnet18", exits=4).architecture()


def test_a_bottleneck_convolution_makes_heads_on_maps_narrower():
    own, narrow = (
        backbone("torchvision:resnet18", exits=2, head_width=width) for width in (None, 8)
    )
    (wide_linear,), (narrow_linear,) = (
        [m for m in net.stages[0].classifier if isinstance(m, nn.Linear)] for net in (own, narrow)
    )
    assert (wide_linear.in_features, narrow_linear.in_features) == (128, 8)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:tiny_convnext"])
def test_a_small_stem_keeps_the_size_of_the_image(name):
    own, small = (backbone(name, exits=2, stem=stem) for stem in ("own", "small"))
    with torch.no_grad():
        (own_features,), (small_features,) = (
            net.stages[0].body(net.start(noise())).values() for net in (own, small)
        )
    assert small_features.shape[-1] == 4 * own_features.shape[-1]
    assert [p.shape for p in small.parameters()] == [p.shape for p in own.parameters()]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "torchvision:resnet81"}, "no model 'resnet81'.*closest: resnet18"),
        ({"name": "torchvision:tiny_tangled"}, "cannot be cut.*control flow.*tiny_tangle_free"),
        (
            {"name": "torchvision:tiny_tied_all"},
            "share weights, such as blocks.0.second.weight.*can: torchvision:tiny_tied",
        ),
        (
            {"name": "torchvision:tiny_tied"},
            "cut in 2 places; elsewhere.*share weights.*to 3 exits",
        ),
        ({"name": "torchvision:tiny_tied", "exits": ("blocks.0",)}, "second.* before and after"),
        (
            {"name": "torchvision:tiny_tied_value", "exits": ("blocks.1",)},
            "after 'blocks.1', as bias is needed before and after",
        ),
        ({"name": "torchvision:resnet18", "exits": 40}, "can be cut in 8 places.*to 9 exits"),
        ({"name": "torchvision:resnet18", "exits": ("layer7",)}, "after 'layer7'.*layer1"),
        ({"name": "torchvision:resnet18", "exits": ("layer2", "layer1")}, "in this order"),
        ({"name": "torchvision:tiny_vit", "stem": "small"}, "does not run on images of 32"),
        ({"name": "torchvision:resnet18", "drop_path": 0.1}, "stochastic_depth_prob"),
        pytest.param({"name": "timm:vit_tinny"}, "timm has no model", marks=needs_timm),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(settings, message):
    with pytest.raises(SettingsError) as refused:
        backbone(**settings)
    text = f"{refused.value} {refused.value.hint}".replace("\n", " ")
    assert re.search(message, text), text


@pytest.mark.parametrize(
    ("name", "after"),
    [("tiny_tied", ["blocks.1", "blocks.2"]), ("tiny_tied_value", ["blocks.0"])],
)
def test_no_two_stages_share_a_parameter(name, after):
    """It is cut between the blocks that have weights of their own, and nowhere else."""
    net = backbone(f"torchvision:{name}", exits=len(after) + 1)
    assert net.arguments["after"] == after
    owners = [parameter for stage in net.stages for parameter in stage.parameters()]
    assert len(owners) == len(set(owners))
    with torch.no_grad():
        assert torch.equal(net(noise())[-1], uncut(f"torchvision:{name}")(noise()))


def test_names_of_blocks_can_be_given_as_text():
    assert BackboneSettings(name="torchvision:x", exits="a.b, c").exits == ("a.b", "c")
