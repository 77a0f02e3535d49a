"""What is read off a held-out split while training."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from torch import Tensor, nn

from hdkd_cli.training.distributed import ALONE
from hdkd_cli.training.monitor import refined_nll


class Answers(nn.Module):
    """A network whose images are its logits, (B, K, C)."""

    num_exits = 3

    def __init__(self) -> None:
        super().__init__()
        self.anything = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        return images.transpose(0, 1)


@pytest.mark.parametrize("scale", [0.3, 1.0, 6.0])
def test_refined_nll_is_the_lowest_over_temperatures(scale):
    rng = torch.Generator().manual_seed(3)
    labels_N = torch.randint(5, (400,), generator=rng)
    logits_NKC = torch.randn(400, 3, 5, generator=rng)
    logits_NKC += (
        1.5 * nn.functional.one_hot(labels_N, 5)[:, None] * torch.rand(400, 3, 1, generator=rng)
    )
    logits_NKC *= scale
    batches = [(logits_NKC[i : i + 150], labels_N[i : i + 150]) for i in range(0, 400, 150)]

    found_K = refined_nll(Answers(), batches, ALONE)

    z_NKC, y_N = logits_NKC.double().numpy(), labels_N.numpy()
    for k in range(3):

        def nll(log_beta: float, z_NC=z_NKC[:, k]) -> float:
            scaled_NC = np.exp(log_beta) * z_NC
            return float(np.mean(logsumexp(scaled_NC, axis=1) - scaled_NC[np.arange(400), y_N]))

        best = minimize_scalar(nll, bounds=(-3, 3), method="bounded")
        assert best.fun <= found_K[k] <= best.fun + 1e-3


def test_refined_nll_does_not_change_with_the_scale_of_logits():
    rng = torch.Generator().manual_seed(4)
    labels_B = torch.randint(5, (300,), generator=rng)
    logits_BKC = torch.randn(300, 3, 5, generator=rng) + nn.functional.one_hot(labels_B, 5)[:, None]
    one = refined_nll(Answers(), [(logits_BKC, labels_B)], ALONE)
    other = refined_nll(Answers(), [(3 * logits_BKC, labels_B)], ALONE)
    assert other == pytest.approx(one, abs=2e-3)
