"""What a stretch of training steps added up to, from one log record to the next.

K exits, T terms.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Totals:
    """Sums over the steps since the last record, on the device.

    Attributes:
        loss: Weighted loss.
        terms_T: Unweighted terms.
        correct_K: Fraction of the batch each exit got right.
        steps: How many steps were added up.
        seconds: What those of them took that an earlier process made.
        updates: The weights' updates among them: the step, and ``TrainState.last_update`` then.
    """

    loss: Tensor
    terms_T: Tensor
    correct_K: Tensor
    steps: int = 0
    seconds: float = 0.0
    updates: list[tuple[int, Tensor]] = field(default_factory=list)

    @classmethod
    def of_no_step(cls, num_terms: int, num_exits: int, device: torch.device) -> Totals:
        """Where every stretch begins."""
        zeros = torch.zeros
        return cls(
            zeros((), device=device),
            zeros(num_terms, device=device),
            zeros(num_exits, device=device),
        )

    def tensors(self) -> dict[str, Tensor]:
        """The sums by name: no copies."""
        return {"loss": self.loss, "terms_T": self.terms_T, "correct_K": self.correct_K}
