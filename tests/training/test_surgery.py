"""Gradient surgery against the published algorithm, written out in loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import changed, small_settings

from hdkd_cli.data import Batch, open_data
from hdkd_cli.errors import SettingsError
from hdkd_cli.settings.layers import resolve
from hdkd_cli.training.distributed import Ranks
from hdkd_cli.training.session import check
from hdkd_cli.training.state import TrainState
from hdkd_cli.training.step import new_totals, train_step
from hdkd_cli.training.surgery import refuse_surgery, without_conflicts

CPU = torch.device("cpu")


def as_published(gradients_KP: np.ndarray, order_KK: np.ndarray) -> np.ndarray:
    """Algorithm 1 of Yu et al. on the vectors themselves, float64."""
    total_P = np.zeros(gradients_KP.shape[1])
    for i, order in enumerate(order_KK):
        own_P = gradients_KP[i].astype(np.float64)
        for j in order:
            other_P = gradients_KP[j].astype(np.float64)
            if j != i and own_P @ other_P < 0:
                own_P = own_P - own_P @ other_P / (other_P @ other_P) * other_P
        total_P += own_P
    return total_P


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_projections_by_coefficients_are_those_of_the_vectors(exits, seed):
    rng = np.random.default_rng(seed)
    gradients_KP = rng.normal(size=(exits, 9))
    gradients_KP[rng.random(exits) < 0.1] = 0  # an exit that learns nothing
    order_KK = rng.random((exits, exits)).argsort(1)
    found_P = without_conflicts(torch.from_numpy(gradients_KP), torch.from_numpy(order_KK))
    np.testing.assert_allclose(found_P, as_published(gradients_KP, order_KK), atol=1e-10)


def test_two_exits_that_conflict_are_each_left_what_does_not_hurt_the_other():
    gradients_KP = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    total_P = without_conflicts(gradients_KP, torch.tensor([[0, 1], [1, 0]]))
    torch.testing.assert_close(total_P, torch.tensor([0.5, 0.5]) + torch.tensor([0.0, 1.0]))
    assert (gradients_KP @ total_P >= 0).all()


def settings_with_surgery(**training: object):
    settings = changed(small_settings(), "objective", teachers="later", gradient_surgery="pcgrad")
    settings = changed(settings, "weights", learned=False)
    return changed(settings, "training", **training)


def state_and_batch(settings) -> tuple[TrainState, Batch]:
    data = open_data(settings.data)
    state = check(settings, data, CPU)
    images_NCHW = torch.randn(
        16, *state.net.input_shape, generator=torch.Generator().manual_seed(0)
    )
    return state, Batch(images_NCHW, torch.arange(16) % 10)


def test_a_step_moves_along_the_projected_gradients_of_the_exits():
    state, batch = state_and_batch(settings_with_surgery())
    parameters = list(state.net.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    buffers = [buffer.clone() for buffer in state.net.buffers()]
    weighted_T = state.step_weights() * state.terms(state.net(batch.images), batch.labels)
    losses = [
        sum(loss for loss, term in zip(weighted_T, state.terms.terms, strict=True)
            if term.student == k)
        for k in range(1, state.net.num_exits + 1)
    ]  # fmt: skip
    gradients_KP = []
    for loss in losses:
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        parts = [
            torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)
        ]
        gradients_KP.append(torch.cat([part.flatten() for part in parts]).numpy())
    for buffer, old in zip(state.net.buffers(), buffers, strict=True):
        buffer.copy_(old)

    torch.manual_seed(3)
    order_KK = torch.rand(len(losses), len(losses)).argsort(1).numpy()
    wanted_P = torch.from_numpy(as_published(np.stack(gradients_KP), order_KK)).float()
    assert not torch.allclose(wanted_P, torch.from_numpy(sum(gradients_KP)), atol=1e-4)

    torch.manual_seed(3)
    train_step(state, [batch], new_totals(state))
    rate, decay = (float(state.optimizer.param_groups[0][k]) for k in ("lr", "weight_decay"))
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, old, part in zip(parameters, before, wanted_P.split(sizes), strict=True):
        wanted = old - rate * (part.view_as(old) + decay * old)  # the first step has no momentum
        torch.testing.assert_close(parameter.detach(), wanted, atol=1e-6, rtol=1e-4)


def test_the_order_of_projections_is_replayed_with_the_step():
    runs = []
    for _ in range(2):
        state, batch = state_and_batch(settings_with_surgery())
        torch.manual_seed(7)
        train_step(state, [batch], new_totals(state))
        runs.append([parameter.detach().clone() for parameter in state.net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize(
    ("settings", "ranks", "why"),
    [
        (changed(settings_with_surgery(), "weights", learned=True), 1, "derivative by the weights"),
        (settings_with_surgery(accumulate=2), 1, "one batch of one process"),
        (settings_with_surgery(), 2, "one batch of one process"),
        (settings_with_surgery(compile=True), 1, "a compiled network"),
    ],
)
def test_what_rests_on_a_plain_sum_is_refused(settings, ranks, why):
    with pytest.raises(SettingsError, match=why):
        refuse_surgery(settings, Ranks(0, ranks))


def test_the_method_is_joint_training_with_surgery():
    pcgrad, joint = (resolve(assignments=[f"method={m}"]).settings for m in ("pcgrad", "joint"))
    assert changed(pcgrad, "objective", gradient_surgery="off") == joint
