"""The balanced validation objective, which the weights are learned on.

K exits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BalancedValidation(nn.Module):
    """L_val = Σ_k [ α·CE_k + (1−α)·softplus(CE_k / E_k − 1) ], E_k an exponential moving average.

    Source: Wang & Li, AAAI 2021, balanced validation module: the ratio to the expected loss keeps
    the large losses of early exits from dominating; α = 0.5 works best and α = 1 is plain CE.
    The exact form is [ours]: E_k ← m·E_k + (1−m)·CE_k, its first value the first CE_k, and L_val
    reads E_k before its update.

    Args:
        num_exits: K.
        alpha: α in [0, 1].
        momentum: m in [0, 1).

    Attributes:
        expected_K: E_k, float32; NaN until the first update. A buffer: it moves with
            ``.to(device)`` and is what ``state_dict()`` holds.
    """

    expected_K: Tensor

    def __init__(self, num_exits: int, alpha: float, momentum: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.momentum = momentum
        self.register_buffer("expected_K", torch.full((num_exits,), torch.nan, dtype=torch.float32))

    def loss(self, ce_K: Tensor) -> Tensor:
        """L_val, a scalar differentiable in ``ce_K`` (K,); E_k is a constant and stays as it is."""
        ratio_K = ce_K / self._expected(ce_K)
        return (self.alpha * ce_K + (1 - self.alpha) * F.softplus(ratio_K - 1)).sum()

    @torch.no_grad()
    def update(self, ce_K: Tensor) -> None:
        """Move E_k towards ``ce_K`` (K,)."""
        self.expected_K.copy_(self._expected(ce_K).lerp(ce_K, 1 - self.momentum))

    def _expected(self, ce_K: Tensor) -> Tensor:
        """E_k, or CE_k itself where there is none yet (decided on the device)."""
        return torch.where(self.expected_K.isnan(), ce_K.detach(), self.expected_K)
