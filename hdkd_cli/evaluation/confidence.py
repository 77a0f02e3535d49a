"""How sure an exit is: the number that is compared with its threshold. B samples, C classes."""

from __future__ import annotations

import math

from torch import Tensor

from hdkd_cli.choices import ConfidenceKind


def confidence(logits_BC: Tensor, kind: ConfidenceKind) -> Tensor:
    """Confidence in [0, 1] of each sample, (B,) float32.

    ``max-prob``: the largest probability. ``entropy``: 1 + Σ p log p / log C, so that 1 is certain
    and 0 uniform. ``margin``: the largest probability minus the second.

    Computed in float32 everywhere, so that thresholds fitted on stored scores mean the same to a
    network that runs.

    Args:
        logits_BC: Combined logits, at least two classes.
        kind: Which.
    """
    logits_BC = logits_BC.float()
    if kind == "entropy":
        # e^-200 is 0 in float32, so the clamp only makes 0 · log 0 = 0.
        log_p_BC = logits_BC.log_softmax(-1).clamp_min(-200)
        negentropy_B = (log_p_BC.exp() * log_p_BC).sum(-1)
        return (1 + negentropy_B / math.log(logits_BC.shape[-1])).clamp(0, 1)
    p_BC = logits_BC.softmax(-1)
    if kind == "max-prob":
        return p_BC.amax(-1)
    first_B, second_B = p_BC.topk(2, dim=-1).values.unbind(-1)
    return first_B - second_B
