# K exits
import math

import pytest
import torch

from hdkd_cli.method import BalancedValidation

SERIES = torch.tensor([[4.0, 3.0, 2.5], [3.5, 3.2, 1.0], [3.0, 9.0, 0.7]])


def by_hand(series, alpha, momentum):
    """L_val and E_k after each batch, with plain numbers."""
    expected, losses = None, []
    for ce in series.tolist():
        expected = expected or ce
        losses.append(
            sum(
                alpha * c + (1 - alpha) * math.log1p(math.exp(c / e - 1))
                for c, e in zip(ce, expected, strict=True)
            )
        )
        expected = [momentum * e + (1 - momentum) * c for c, e in zip(ce, expected, strict=True)]
        yield losses[-1], expected


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_objective_over_a_series(alpha, momentum):
    validation = BalancedValidation(3, alpha, momentum)
    for ce_K, (loss, expected) in zip(SERIES, by_hand(SERIES, alpha, momentum), strict=True):
        torch.testing.assert_close(validation.loss(ce_K), torch.tensor(loss))
        validation.update(ce_K)
        torch.testing.assert_close(validation.expected_K, torch.tensor(expected))


def test_reading_the_loss_leaves_the_expected_losses():
    validation = BalancedValidation(3, 0.5, 0.9)
    validation.loss(SERIES[0])
    assert validation.expected_K.isnan().all()
    validation.update(SERIES[0])
    assert torch.equal(validation.expected_K, SERIES[0])
    validation.loss(SERIES[1])
    assert torch.equal(validation.expected_K, SERIES[0])


@pytest.mark.parametrize("warm", [False, True])
def test_gradient_takes_the_expected_loss_as_a_constant(warm):
    """∂L_val/∂CE_k = α + (1−α)·σ(CE_k/E_k − 1)/E_k, also where E_k is CE_k itself."""
    validation = BalancedValidation(3, 0.3, 0.9)
    if warm:
        validation.update(SERIES[0])
    ce_K = SERIES[1].clone().requires_grad_()
    (gradient_K,) = torch.autograd.grad(validation.loss(ce_K), ce_K)
    expected_K = SERIES[0] if warm else SERIES[1]
    ratio_K = SERIES[1] / expected_K
    torch.testing.assert_close(gradient_K, 0.3 + 0.7 * (ratio_K - 1).sigmoid() / expected_K)


def test_large_losses_of_early_exits_do_not_dominate_the_ratio_part():
    validation = BalancedValidation(2, 0.0, 0.9)
    validation.update(torch.tensor([4.0, 1.0]))
    ce_K = torch.tensor([4.4, 1.1], requires_grad=True)  # both a tenth above what is expected
    (gradient_K,) = torch.autograd.grad(validation.loss(ce_K), ce_K)
    torch.testing.assert_close(4.4 * gradient_K[0], 1.1 * gradient_K[1])


def test_state_round_trip():
    validation, other = BalancedValidation(3, 0.5, 0.9), BalancedValidation(3, 0.5, 0.9)
    validation.update(SERIES[0])
    validation.update(SERIES[1])
    other.load_state_dict({name: t.clone() for name, t in validation.state_dict().items()})
    assert torch.equal(other.loss(SERIES[2]), validation.loss(SERIES[2]))
