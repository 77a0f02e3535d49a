"""Gradient equilibrium against chains computed by hand, plain gradients, and forward mode."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_nets import chain_net, images, small_msdnet, small_ranet
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, jvp

import hdkd_cli.models.contract as contract
from hdkd_cli.models import MultiExitNet, scale_gradient

# torch itself says so when it loads its forward-mode formulas
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

MODES = ("off", "state", "head")
factors = st.floats(0.0, 8.0)


@settings(deadline=None)
@given(factor=factors)
def test_scaling_counts_in_reverse_and_in_forward_mode(factor):
    x = torch.tensor([-0.0, 1.5, float("inf"), float("nan")], requires_grad=True)
    scaled = scale_gradient(x, factor)
    assert torch.equal(scaled.detach().view(torch.int32), x.detach().view(torch.int32))
    assert scaled.data_ptr() == x.data_ptr()
    direction = torch.tensor([1.0, -2.0, 3.0, 0.5])
    (gradient,) = torch.autograd.grad(scaled, x, direction)
    torch.testing.assert_close(gradient, factor * direction)
    with torch.no_grad(), forward_ad.dual_level():
        dual = forward_ad.make_dual(x.detach(), direction)
        primal, tangent = forward_ad.unpack_dual(scale_gradient(dual, factor))
    assert torch.equal(primal.view(torch.int32), x.detach().view(torch.int32))
    torch.testing.assert_close(tangent, factor * direction)


def test_scaling_composes_with_functional_transforms_and_second_order():
    x, direction = torch.randn(3).double(), torch.randn(3).double()
    _, tangent = jvp(lambda y: scale_gradient(y, 0.25).square(), (x,), (direction,))
    torch.testing.assert_close(tangent, 0.25 * 2 * x * direction)
    weight = torch.tensor(3.0).double().requires_grad_()
    x.requires_grad_()
    loss = (weight * scale_gradient(x, 0.25)).sum()
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    (by_weight,) = torch.autograd.grad(gradient @ direction, weight)
    torch.testing.assert_close(by_weight, 0.25 * direction.sum())


def test_a_factor_of_one_is_nothing_at_all():
    x = torch.randn(3, requires_grad=True)
    assert scale_gradient(x, 1) is x
    assert scale_gradient(x, 1.0) is x


def test_nothing_is_scaled_when_off(monkeypatch):
    def refuse(x: Tensor, factor: float) -> Tensor:
        raise AssertionError("scaled")

    monkeypatch.setattr(contract, "scale_gradient", refuse)
    net = chain_net()
    net(torch.ones(1, 1, 1, 1).double())
    net.gradient_equilibrium = "head"
    with pytest.raises(AssertionError, match="scaled"):
        net(torch.ones(1, 1, 1, 1).double())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("exits", [1, 2, 4])
def test_a_chain_gets_the_gradients_computed_by_hand(mode, exits):
    net = chain_net(exits)
    net.gradient_equilibrium = mode
    counts = [1.0 + 0.3 * k for k in range(exits)]  # the loss is Σ counts[k] · logit k
    logits_KBC = net(torch.full((1, 1, 1, 1), 2.0).double())
    sum(c * z.sum() for c, z in zip(counts, logits_KBC, strict=True)).backward()

    xs, sides = [2.0], [2.0]
    for stage in net.stages:
        xs.append(stage.w.item() * xs[-1] + stage.u.item() * sides[-1])
        sides.append(stage.v.item() * sides[-1])
    from_x = from_side = 0.0  # the loss by the next stage's x and side
    for k in reversed(range(exits)):
        stage = net.stages[k]
        at_exit, onward = (1 / (exits - k), exits - k - 1) if mode != "off" else (1, 1)
        by_x = at_exit * (stage.h.item() * counts[k] + onward * from_x)
        by_side = from_side * (at_exit * onward if mode == "state" else 1)
        expected = {
            "w": by_x * xs[k],
            "u": by_x * sides[k],
            "v": by_side * sides[k],
            "h": counts[k] * xs[k + 1],
        }
        for name, value in expected.items():
            gradient = getattr(stage, name).grad
            found = 0.0 if gradient is None else gradient.item()  # the last ``side`` is not read
            assert found == pytest.approx(value, rel=1e-12), (k, name)
        from_x = by_x * stage.w.item()
        from_side = by_x * stage.u.item() + by_side * stage.v.item()


def test_a_stage_gets_the_mean_over_the_losses_behind_it():
    net = small_msdnet()
    x = images(net, 4)
    probe_KBC = torch.randn(3, 4, 4, dtype=torch.float64)
    bodies = [
        [p for name, p in stage.named_parameters() if not name.startswith("classifier")]
        for stage in net.stages
    ]
    plain = [
        torch.autograd.grad((net(x) * probe_KBC)[k:].sum(), body) for k, body in enumerate(bodies)
    ]
    net.gradient_equilibrium = "state"
    for k, body in enumerate(bodies):
        balanced = torch.autograd.grad((net(x) * probe_KBC).sum(), body)
        for a, b in zip(balanced, plain[k], strict=True):
            torch.testing.assert_close(a, b / (3 - k), rtol=1e-9, atol=1e-12)


def tangents(net: MultiExitNet, x: Tensor, direction: dict[str, Tensor]) -> Tensor:
    """Derivative (K, B, C) of the logits along ``direction`` in the parameters."""
    with torch.no_grad(), forward_ad.dual_level():
        duals: dict[str, Any] = {
            name: forward_ad.make_dual(p, direction[name]) for name, p in net.named_parameters()
        }
        tangent: Tensor = forward_ad.unpack_dual(functional_call(net, duals, (x,))).tangent
        return tangent.clone()


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "build",
    [partial(small_msdnet, reduction=0.5), partial(small_msdnet, reduction=1.0), small_ranet],
)
def test_forward_mode_is_the_transpose_of_reverse_mode(mode, train, build):
    torch.manual_seed(1)
    net = build().train(train)
    net.gradient_equilibrium = mode
    x = images(net, 4)
    direction = {name: torch.randn_like(p) for name, p in net.named_parameters()}
    probe_KBC = torch.randn(3, 4, 4, dtype=torch.float64)
    gradients = torch.autograd.grad(net(x), list(net.parameters()), probe_KBC)
    reverse = sum((g * d).sum() for g, d in zip(gradients, direction.values(), strict=True))
    forward = (tangents(net, x, direction) * probe_KBC).sum()
    torch.testing.assert_close(forward, reverse, rtol=1e-10, atol=1e-10)
    if mode != "off":  # and R really acts in forward mode
        with net.true_gradients():
            plain = (tangents(net, x, direction) * probe_KBC).sum()
        assert not torch.isclose(plain, forward)


@pytest.mark.parametrize("mode", MODES)
def test_logits_do_not_change_by_a_bit(mode):
    net = small_msdnet()
    x = images(net, 4)
    expected = net(x)
    net.gradient_equilibrium = mode
    assert torch.equal(net(x), expected)


def test_it_can_be_switched_off_for_a_while():
    net = chain_net()
    net.gradient_equilibrium = "head"
    with net.true_gradients():
        assert net.gradient_equilibrium == "off"
    assert net.gradient_equilibrium == "head"
    with pytest.raises(KeyError), net.true_gradients():
        raise KeyError
    assert net.gradient_equilibrium == "head"
