"""How sure an exit is: the number that is compared with its threshold. B samples, C classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor

from hdkd_cli.errors import PolicyError
from hdkd_cli.evaluation.policy import add_confidence

Confidence = Callable[[Tensor], Tensor]
"""Combined logits (B, C), float32 → how sure, (B,) in [0, 1]; NaN where a logit is NaN."""


def max_prob(logits_BC: Tensor) -> Tensor:
    """The largest probability."""
    return logits_BC.softmax(-1).amax(-1)


def entropy(logits_BC: Tensor) -> Tensor:
    """1 + Σ p log p / log C, so that 1 is certain and 0 uniform."""
    # e^-200 is 0 in float32, so the clamp only makes 0 · log 0 = 0.
    log_p_BC = logits_BC.log_softmax(-1).clamp_min(-200)
    negentropy_B = (log_p_BC.exp() * log_p_BC).sum(-1)
    return (1 + negentropy_B / math.log(logits_BC.shape[-1])).clamp(0, 1)


def margin(logits_BC: Tensor) -> Tensor:
    """The largest probability minus the second."""
    first_B, second_B = logits_BC.softmax(-1).topk(2, dim=-1).values.unbind(-1)
    return first_B - second_B


_CONFIDENCES: dict[str, Confidence] = {"max-prob": max_prob, "entropy": entropy, "margin": margin}
CONFIDENCES: Mapping[str, Confidence] = MappingProxyType(_CONFIDENCES)
"""Name → measure. The exported runner has its own copy of those that come with hdkd."""


def register_confidence(name: str, measure: Confidence) -> None:
    """Make a confidence of one's own known: to calibration, evaluation and early exit.

    An export cannot carry it along.

    Args:
        name: What policies call it: small letters, digits and hyphens.
        measure: Combined logits (B, C), float32, at least two classes → (B,) in [0, 1]. NaN must
            stay NaN: a network whose logits are NaN is told by that.

    Raises:
        ValueError: the name is taken, or is none.
    """
    add_confidence(name)
    _CONFIDENCES[name] = measure


def confidence(logits_BC: Tensor, kind: str) -> Tensor:
    """Confidence in [0, 1] of each sample, (B,) float32.

    Computed in float32 everywhere, so that thresholds fitted on stored scores mean the same to a
    network that runs.

    Args:
        logits_BC: Combined logits, at least two classes.
        kind: Which, one of ``CONFIDENCES``.

    Raises:
        PolicyError: there is no such kind.
    """
    measure = CONFIDENCES.get(kind)
    if measure is None:
        raise PolicyError(
            f"confidence {kind!r}: no such kind", hint=f"there are {', '.join(CONFIDENCES)}"
        )
    return measure(logits_BC.float())
