# K exits, T terms
import copy
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from hdkd_cli.method import BalancedValidation, HarmonizedWeights, Harmonizer, StepInputs, Terms

K, FEATURES, CLASSES = 3, 6, 4


class Chain(nn.Module):
    """Linear blocks with BatchNorm, a head each."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.BatchNorm1d(FEATURES), nn.ReLU())
            for _ in range(K)
        )
        self.heads = nn.ModuleList(nn.Linear(FEATURES, CLASSES) for _ in range(K))

    def forward(self, x):
        logits = []
        for block, head in zip(self.blocks, self.heads, strict=True):
            x = block(x)
            logits.append(head(x))
        return torch.stack(logits)


class Training:
    """A network, its optimiser and a harmonizer; batches depend on the step alone."""

    def __init__(self, *, parametrisation="exp", momentum=0.9, device="cpu", **options):
        torch.manual_seed(0)
        self.device = device
        self.net = Chain().to(device)
        self.optimizer = torch.optim.SGD(self.net.parameters(), 0.1, momentum=momentum)
        self.terms = Terms(K, "later", 3.0)
        weights = HarmonizedWeights(
            self.terms,
            init="balanced",
            parametrisation=parametrisation,
            distillation_sum=None,
            dbt_share=0.5,
            learned=True,
            seed=0,
        )
        self.harmonizer = Harmonizer(
            weights,
            self.terms,
            BalancedValidation(K, 0.5, 0.9),
            **{"lr": 0.1, "pull": 0.5, "interval": 1, "nesterov_momentum": 0.0} | options,
        ).to(device)

    def batch(self, number):
        draw = torch.Generator().manual_seed(number)
        images = torch.randn(16, FEATURES, generator=draw)
        labels = torch.randint(CLASSES, (16,), generator=draw)
        return images.to(self.device), labels.to(self.device)

    def step(self, step, val=None, step_ok=None):
        """One optimiser step and, where it is due, one update of the weights."""
        train = self.batch(step)
        val = self.batch(1000 + step) if val is None else val
        if self.harmonizer.due(step):
            self.harmonizer.before_step(self.net)
        self.optimizer.zero_grad()
        (self.harmonizer.weights() * self.terms(self.net(train[0]), train[1])).sum().backward()
        self.optimizer.step()
        if self.harmonizer.due(step):
            return self.harmonizer.after_step(self.net, [train], val, step_ok)
        return None

    def state(self):
        return {name: t.clone() for name, t in self.harmonizer.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[n].nan_to_num(), second[n].nan_to_num()) for n in first
    )


@pytest.mark.parametrize(("interval", "steps"), [(1, [0, 1, 2, 3, 4]), (3, [2]), (2, [1, 3])])
def test_due_after_every_interval(interval, steps):
    harmonizer = Training(interval=interval).harmonizer
    assert [step for step in range(5) if harmonizer.due(step)] == steps


@pytest.mark.parametrize("pull", [0.0, 0.5])
@pytest.mark.parametrize("parametrisation", ["exp", "grouped", "softmax"])
def test_updates_are_adam_with_a_decoupled_pull(parametrisation, pull):
    """torch's AdamW on the chain rule's closed form; the pull is its weight decay."""
    training = Training(parametrisation=parametrisation, pull=pull)
    weights = training.harmonizer.weights
    raw_T = weights.raw_T.clone()
    reference = torch.optim.AdamW([raw_T], lr=0.1, weight_decay=pull)
    for step in range(12):
        gamma_T = weights()
        hyper_T = training.step(step).hypergradient_T
        share_T = gamma_T * hyper_T
        groups = {"exp": [], "grouped": [slice(0, K), slice(K, 6)], "softmax": [slice(0, 6)]}
        raw_T.grad = share_T.clone()
        for group in groups[parametrisation]:
            mean = share_T[group].sum() / gamma_T[group].sum()
            raw_T.grad[group] -= gamma_T[group] * mean
        reference.step()
        torch.testing.assert_close(weights.raw_T, raw_T, rtol=1e-4, atol=1e-5)
    assert raw_T.abs().max() > 0.1


def test_an_update_lowers_the_validation_objective():
    """The same step, taken again with the updated weights, ends at a lower L_val."""
    training = Training(lr=0.02, pull=0.0)
    training.harmonizer.validation.update(torch.tensor([1.6, 1.5, 1.4]))
    again = copy.deepcopy(training)
    first = training.step(0)
    again.harmonizer.weights.raw_T.copy_(training.harmonizer.weights.raw_T)
    second = again.step(0)
    predicted = first.hypergradient_T @ (
        training.harmonizer.weights() - Training().harmonizer.weights()
    )
    assert second.val_loss < first.val_loss
    torch.testing.assert_close(  # by what the hypergradient says, lr of the network 0.1
        second.val_loss - first.val_loss, 0.1 * predicted, rtol=0.1, atol=0
    )


def test_the_record_holds_the_validation_losses():
    training = Training()
    val = training.batch(77)
    record = training.step(0, val=val)
    logits_KBC = training.net(val[0])
    expected = [nn.functional.cross_entropy(z, val[1]) for z in logits_KBC]
    torch.testing.assert_close(record.val_ce_K, torch.stack(expected).detach())
    assert record.applied
    assert torch.equal(training.harmonizer.validation.expected_K, record.val_ce_K)


def test_a_skipped_step_or_a_value_that_is_not_finite_changes_nothing():
    training, undisturbed = Training(), Training()
    for each in (training, undisturbed):
        each.step(0)
    before = training.state()
    net = copy.deepcopy(training.net.state_dict())

    images, labels = training.batch(5)
    spoilt = training.step(1, val=(images * torch.nan, labels))
    assert not spoilt.applied
    assert same(before, training.state())
    skipped = training.step(2, step_ok=torch.tensor(False))
    assert not skipped.applied
    assert skipped.hypergradient_T.isfinite().all()
    assert same(before, training.state())

    training.net.load_state_dict(net)  # and the next update is as if nothing had happened
    training.optimizer.load_state_dict(copy.deepcopy(undisturbed.optimizer.state_dict()))
    assert training.step(3, step_ok=torch.tensor(True)).applied
    undisturbed.step(3)
    assert same(undisturbed.state(), training.state())


@pytest.mark.parametrize("saved_after", [0, 4])
def test_resuming_goes_on_bit_for_bit(saved_after):
    whole, first = Training(parametrisation="grouped"), Training(parametrisation="grouped")
    for step in range(9):
        whole.step(step)
    for step in range(saved_after):
        first.step(step)
    saved = first.state()
    assert all(isinstance(t, torch.Tensor) for t in saved.values())

    resumed = Training(parametrisation="grouped")
    resumed.net, resumed.optimizer = first.net, first.optimizer
    resumed.harmonizer.load_state_dict(saved)
    for step in range(saved_after, 9):
        resumed.step(step)
    assert same(whole.state(), resumed.state())


def test_refreshed_inputs_are_those_of_now_in_the_memory_of_then():
    training = Training()
    inputs = StepInputs.of(training.net)
    places = [t.data_ptr() for t in (*inputs.parameters.values(), *inputs.buffers.values())]
    training.step(0)
    torch.rand(1)
    now = StepInputs.of(training.net)
    assert not same(inputs.parameters, now.parameters)
    assert not same(inputs.buffers, now.buffers)
    assert not torch.equal(inputs.generators[0], now.generators[0])
    inputs.refresh(training.net)
    assert same(inputs.parameters, now.parameters)
    assert same(inputs.buffers, now.buffers)
    assert torch.equal(inputs.generators[0], now.generators[0])
    refreshed = (*inputs.parameters.values(), *inputs.buffers.values())
    assert [t.data_ptr() for t in refreshed] == places


def test_gradients_are_exact_for_the_validation_pass_alone():
    passes = []

    @contextmanager
    def exact():
        training.net.exact = True
        yield
        training.net.exact = False

    training = Training(exact_gradients=exact)
    training.net.exact = False
    training.net.register_forward_hook(lambda net, *_: passes.append(net.exact))
    training.step(0)
    assert passes == [False, True, False]  # the step, v, the tangents


def test_misuse_is_caught():
    training = Training()
    with pytest.raises(AssertionError, match="before_step"):
        training.harmonizer.after_step(training.net, [training.batch(0)], training.batch(1))
    training.step(0)
    with pytest.raises(AssertionError, match="before_step"):
        training.harmonizer.after_step(training.net, [training.batch(0)], training.batch(1))
    with pytest.raises(AssertionError, match="float16"):
        Training(autocast_dtype=torch.float16).step(0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_updates_and_never_waits():
    cpu, cuda = Training(), Training(device="cuda")
    for step in range(3):
        cpu.step(step)
        cuda.step(step)
    train, val = cuda.batch(3), cuda.batch(1003)
    torch.cuda.set_sync_debug_mode("error")
    try:
        cuda.harmonizer.before_step(cuda.net)
        loss = (cuda.harmonizer.weights() * cuda.terms(cuda.net(train[0]), train[1])).sum()
        cuda.optimizer.zero_grad()
        loss.backward()
        cuda.optimizer.step()
        record = cuda.harmonizer.after_step(cuda.net, [train], val)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = cpu.step(3)
    torch.testing.assert_close(
        record.hypergradient_T.cpu(), expected.hypergradient_T, rtol=0.02, atol=1e-4
    )
    assert record.applied
