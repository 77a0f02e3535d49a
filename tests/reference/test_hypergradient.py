"""The forward-mode hypergradient against full unrolled autograd and finite differences.

The step that is taken is always torch.optim.SGD's. K exits, B batch, C classes, T terms.
"""

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from hdkd_cli.method import (
    BalancedValidation,
    HarmonizedWeights,
    Harmonizer,
    StepInputs,
    Terms,
    hypergradient,
    validation_gradient,
)
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.models.equilibrium import scale_gradient
from hdkd_cli.models.msdnet import MSDNet

LR, CLASSES = 0.1, 5
EXPECTED_LOSS = [2.0, 1.5, 1.2, 1.1]


class TinyNet(nn.Module):
    """Convolution, BatchNorm, ReLU and a linear head an exit; optionally dropout or attention."""

    def __init__(self, num_exits=4, dropout=0.0, attention=False):
        super().__init__()
        widths = [3, *range(6, 6 + num_exits)]
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(narrow, wide, 3, padding=1, bias=False),
                nn.BatchNorm2d(wide),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
            )
            for narrow, wide in pairwise(widths)
        )
        self.heads = nn.ModuleList(nn.Linear(wide, CLASSES) for wide in widths[1:])
        self.attention = attention
        self.gradient_equilibrium = "off"

    def forward(self, x):
        logits, exits = [], len(self.heads)
        for i, (block, head) in enumerate(zip(self.blocks, self.heads, strict=True)):
            x = block(x)
            if self.attention:
                tokens = x.flatten(2).transpose(1, 2)
                x = F.scaled_dot_product_attention(tokens, tokens, tokens)
                x = x.transpose(1, 2).unflatten(2, (6, 6))
            active = self.gradient_equilibrium != "off"
            x = scale_gradient(x, 1 / (exits - i) if active else 1)
            logits.append(head(x.mean((2, 3))))
            x = scale_gradient(x, exits - i - 1 if active and i < exits - 1 else 1)
        return torch.stack(logits)


class Problem:
    """A network in float64, its optimiser, and batches; the same numbers every time."""

    def __init__(self, net, *, terms, accumulate=1, size=6, dtype=torch.float64, **optimizer):
        self.net = net.to(dtype).train()
        self.terms = terms
        self.optimizer = torch.optim.SGD(net.parameters(), LR, **optimizer)
        self.validation = BalancedValidation(terms.num_exits, 0.4, 0.9)
        self.validation.expected_K.copy_(torch.tensor(EXPECTED_LOSS[: terms.num_exits]))
        draw = torch.Generator().manual_seed(3)
        batches = [
            (
                torch.randn(8, 3, size, size, generator=draw, dtype=torch.float64).to(dtype),
                torch.randint(CLASSES, (8,), generator=draw),
            )
            for _ in range(accumulate + 2)
        ]
        self.train, (self.val, self.warm_up) = batches[:accumulate], batches[accumulate:]
        self.gamma_T = torch.rand(len(terms.names), generator=draw, dtype=torch.float64) + 0.5
        if optimizer.get("momentum"):  # a step elsewhere fills the momentum buffers
            self.step([self.warm_up])

    def step(self, batches, gamma_T=None):
        gamma_T = self.gamma_T if gamma_T is None else gamma_T
        self.optimizer.zero_grad()
        for images, labels in batches:
            losses_T = self.terms(self.net(images), labels)
            ((gamma_T * losses_T).sum() / len(batches)).backward()
        self.optimizer.step()

    def by_forward_mode(self, **options):
        """What the package computes, around the optimiser's own step."""
        momentum = self.optimizer.defaults["momentum"] if self.optimizer.defaults["nesterov"] else 0
        inputs = StepInputs.of(self.net)
        self.step(self.train)
        with MultiExitNet.true_gradients(self.net):
            upper = validation_gradient(self.net, self.validation, self.val, **options)
        return hypergradient(
            self.net,
            self.terms,
            inputs,
            upper.direction,
            self.train,
            nesterov_momentum=momentum,
            **options,
        )


def validation_loss(logits_KBC, labels_B):
    """docs/concepts/method.md, section 2, exit by exit."""
    total = 0.0
    for z, expected in zip(logits_KBC, torch.tensor(EXPECTED_LOSS), strict=False):
        ce = F.cross_entropy(z, labels_B)
        total = total + 0.4 * ce + 0.6 * torch.log1p((ce / expected - 1).exp())
    return total


def by_unrolling(problem):
    """Full autograd through the SGD step, written out; and the parameters it arrives at."""
    net, settings = problem.net, problem.optimizer.defaults
    buffers = {name: b.clone() for name, b in net.named_buffers()}
    theta = {n: p.detach().clone().requires_grad_() for n, p in net.named_parameters()}
    gamma_T = problem.gamma_T.clone().requires_grad_()
    loss = 0.0
    for images, labels in problem.train:
        losses_T = problem.terms(functional_call(net, {**theta, **buffers}, (images,)), labels)
        loss = loss + (gamma_T * losses_T).sum() / len(problem.train)
    gradients = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
    stepped = {}
    for (name, parameter), gradient in zip(net.named_parameters(), gradients, strict=True):
        change = gradient + settings["weight_decay"] * theta[name]
        if mu := settings["momentum"]:
            velocity = mu * problem.optimizer.state[parameter]["momentum_buffer"] + change
            change = change + mu * velocity if settings["nesterov"] else velocity
        stepped[name] = theta[name] - LR * change
    images, labels = problem.val
    with MultiExitNet.true_gradients(net):
        upper = validation_loss(functional_call(net, {**stepped, **buffers}, (images,)), labels)
    (gradient_T,) = torch.autograd.grad(upper, gamma_T)
    return gradient_T / LR, stepped


def by_finite_differences(problem, epsilon=1e-6):
    """L_val after real optimiser steps with one weight changed at a time."""

    def upper(gamma_T):
        trial = copy.deepcopy(problem)
        trial.step(trial.train, gamma_T)
        with torch.no_grad():
            return validation_loss(trial.net(trial.val[0]), trial.val[1])

    rows = epsilon * torch.eye(len(problem.gamma_T), dtype=torch.float64)
    slopes = [upper(problem.gamma_T + row) - upper(problem.gamma_T - row) for row in rows]
    return torch.stack(slopes) / (2 * epsilon * LR)


def relative_error(actual, reference):
    return float((actual - reference).norm() / reference.norm())


def seeded(build):
    torch.manual_seed(11)
    return build()


STEPS = {
    "plain": {},
    "weight decay": {"weight_decay": 0.01},
    "momentum": {"momentum": 0.9, "weight_decay": 0.01},
    "nesterov": {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
    "accumulation": {"momentum": 0.9, "accumulate": 3},
}


def check_against_unrolling(problem):
    expected_T, stepped = by_unrolling(problem)
    actual_T = problem.by_forward_mode()
    for name, parameter in problem.net.named_parameters():  # both looked ahead to the same place
        torch.testing.assert_close(parameter.detach(), stepped[name].detach())
    assert relative_error(actual_T, expected_T) < 1e-10
    assert actual_T.dtype == torch.float64


@pytest.mark.parametrize("equilibrium", ["off", "state"])
@pytest.mark.parametrize("step", STEPS)
def test_equals_unrolled_autograd(step, equilibrium):
    net = seeded(TinyNet)
    net.gradient_equilibrium = equilibrium
    check_against_unrolling(Problem(net, terms=Terms(4, "later", 3.0), **STEPS[step]))


@pytest.mark.parametrize(("teachers", "num_exits"), [("none", 3), ("last", 4), ("later", 1)])
def test_equals_unrolled_autograd_for_other_teachers(teachers, num_exits):
    net = seeded(lambda: TinyNet(num_exits))
    check_against_unrolling(Problem(net, terms=Terms(num_exits, teachers, 2.0), momentum=0.9))


@pytest.mark.parametrize("step", ["plain", "nesterov", "accumulation"])
def test_equals_finite_differences_through_the_real_optimiser(step):
    problem = Problem(seeded(TinyNet), terms=Terms(4, "later", 3.0), **STEPS[step])
    expected_T = by_finite_differences(problem)
    assert relative_error(problem.by_forward_mode(), expected_T) < 1e-6


@pytest.mark.parametrize("equilibrium", ["off", "state", "head"])
def test_equals_unrolled_autograd_on_msdnet(equilibrium):
    net = seeded(
        lambda: MSDNet(
            exits=3,
            base=1,
            step=1,
            step_mode="even",
            channels=4,
            growth=4,
            growth_factors=(1, 2),
            bottleneck_factors=(1, 2),
            prune="max",
            reduction=0.5,
            stem="cifar",
            init="he",
            num_classes=CLASSES,
            image_size=16,
        )
    )
    net.gradient_equilibrium = equilibrium
    terms = Terms(3, "later", 3.0)
    check_against_unrolling(Problem(net, terms=terms, size=16, momentum=0.9, weight_decay=1e-4))


def test_replays_the_dropout_of_the_step():
    problem = Problem(seeded(lambda: TinyNet(dropout=0.4)), terms=Terms(4, "later", 3.0))
    problem.train.append(problem.warm_up)  # the second micro-batch has masks of its own
    torch.manual_seed(5)
    expected_T, _ = by_unrolling(problem)
    torch.manual_seed(5)
    assert relative_error(problem.by_forward_mode(), expected_T) < 1e-10


def test_attention_is_differentiated():
    problem = Problem(seeded(lambda: TinyNet(attention=True)), terms=Terms(4, "later", 3.0))
    with sdpa_kernel(SDPBackend.MATH):
        expected_T, _ = by_unrolling(problem)
    assert relative_error(problem.by_forward_mode(), expected_T) < 1e-10


def test_float32_and_bfloat16_are_accurate_enough():
    terms = Terms(4, "later", 3.0)
    exact_T = Problem(seeded(TinyNet), terms=terms).by_forward_mode()
    single = Problem(seeded(TinyNet), terms=terms, dtype=torch.float32)
    assert relative_error(single.by_forward_mode().double(), exact_T) < 1e-4
    single = Problem(seeded(TinyNet), terms=terms, dtype=torch.float32)
    half_T = single.by_forward_mode(autocast_dtype=torch.bfloat16)
    assert half_T.dtype == torch.float32
    assert 1e-4 < relative_error(half_T.double(), exact_T) < 0.1


def test_leaves_everything_as_found():
    problem = Problem(seeded(lambda: TinyNet(dropout=0.3)), terms=Terms(4, "later", 3.0))
    net = problem.net
    net.blocks[0][0].weight.requires_grad_(False)
    net.blocks[1][1].eval()
    inputs = StepInputs.of(net)
    problem.step(problem.train)

    def everything():
        return {
            **{f"parameter {n}": p.detach().clone() for n, p in net.named_parameters()},
            **{
                f"gradient {n}": p.grad.clone()
                for n, p in net.named_parameters()
                if p.requires_grad
            },
            **{f"buffer {n}": b.clone() for n, b in net.named_buffers()},
            **{f"kept {n}": p.clone() for n, p in inputs.parameters.items()},
            "rng": torch.get_rng_state(),
            "expected": problem.validation.expected_K.clone(),
            "flags": torch.tensor(
                [m.training for m in net.modules()] + [p.requires_grad for p in net.parameters()]
            ),
        }

    before = everything()
    upper = validation_gradient(net, problem.validation, problem.val)
    hypergradient(net, problem.terms, inputs, upper.direction, problem.train, nesterov_momentum=0.0)
    after = everything()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name
    assert "blocks.0.0.weight" not in upper.direction
    assert all(p.requires_grad for n, p in net.named_parameters() if n != "blocks.0.0.weight")


def test_a_state_kept_for_a_generator_that_is_out_of_reach_is_left_alone():
    # a CUDA graph is recorded from inputs that were kept before the recording
    problem = Problem(seeded(TinyNet), terms=Terms(4, "later", 3.0))
    inputs = StepInputs.of(problem.net)
    inputs.generators.append(torch.zeros(16, dtype=torch.uint8))
    upper = validation_gradient(problem.net, problem.validation, problem.val)
    found_T = hypergradient(
        problem.net, problem.terms, inputs, upper.direction, problem.train, nesterov_momentum=0.0
    )
    assert found_T.count_nonzero()


def test_validation_gradient_is_that_of_the_objective():
    problem = Problem(seeded(TinyNet), terms=Terms(4, "later", 3.0))
    upper = validation_gradient(problem.net, problem.validation, problem.val)
    loss = validation_loss(problem.net(problem.val[0]), problem.val[1])
    loss.backward()
    torch.testing.assert_close(upper.loss, loss.detach())
    for name, parameter in problem.net.named_parameters():
        torch.testing.assert_close(upper.direction[name], parameter.grad, rtol=1e-9, atol=1e-12)


def over_ranks(job, ranks=2):
    """``job(rank, mean)`` for ranks that run one after the other.

    They are run again and again; each time one more of their calls of ``mean`` returns the average
    of what all ranks gave it.
    """
    averages = []
    while True:
        given = [[] for _ in range(ranks)]

        def mean(tensor, rank):
            call = len(given[rank])  # noqa: B023
            given[rank].append(tensor.clone())  # noqa: B023
            return averages[call].clone() if call < len(averages) else tensor

        results = [job(rank, lambda t, rank=rank: mean(t, rank)) for rank in range(ranks)]
        if len(averages) == len(given[0]):
            return results
        averages.append(torch.stack([of_rank[len(averages)] for of_rank in given]).mean(0))


def test_two_ranks_equal_one_process():
    """Without batch statistics the halves of a batch on two ranks give the whole batch's result."""

    def problem():
        whole = Problem(seeded(TinyNet), terms=Terms(4, "later", 3.0), momentum=0.9, nesterov=True)
        whole.net.eval()
        return whole

    def half(batch, rank):
        return tuple(part.chunk(2)[rank] for part in batch)

    def update(problem, train, val, mean):
        weights = HarmonizedWeights(
            problem.terms,
            init="balanced",
            parametrisation="grouped",
            distillation_sum=None,
            dbt_share=0.5,
            learned=True,
            seed=0,
        )
        harmonizer = Harmonizer(
            weights,
            problem.terms,
            problem.validation,
            lr=0.01,
            pull=0.5,
            interval=1,
            nesterov_momentum=0.9,
            mean=mean,
        )
        harmonizer.before_step(problem.net)
        problem.step(problem.train)  # data-parallel ranks all take the step of the whole batch
        record = harmonizer.after_step(problem.net, train, val)
        return record, weights(), problem.validation.expected_K

    def on_rank(rank, mean):
        shared = problem()
        return update(
            shared, [half(b, rank) for b in shared.train], half(shared.val, rank), mean
        )  # fmt: skip

    whole = problem()
    expected, expected_weights, expected_K = update(whole, whole.train, whole.val, None)
    (first, first_weights, first_K), (second, second_weights, _) = over_ranks(on_rank)
    assert relative_error(first.hypergradient_T, expected.hypergradient_T) < 1e-10
    torch.testing.assert_close(first.val_loss, expected.val_loss)
    torch.testing.assert_close(first_K, expected_K)
    torch.testing.assert_close(first_weights, expected_weights)
    assert torch.equal(first.hypergradient_T, second.hypergradient_T)
    assert torch.equal(first_weights, second_weights)
