"""What an exit says, in numbers: its logits combined with those before it, and how sure it is.

Nothing but numpy is needed: evaluation, early exit and exported networks all compute by these.
B samples, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Measure = Callable[[NDArray[np.float32]], NDArray[np.floating]]
"""Combined logits (B, C) → how sure, (B,) in [0, 1]; NaN where a logit is NaN. Those here compute
in float64: rounded to float32, all machines agree on them."""


def combine(
    seen: Sequence[NDArray[Any] | None], weights: Sequence[float], temperature: float = 1.0
) -> NDArray[np.float32]:
    """Σ_j w_j z_j / τ, the logits that an exit's answer is read from.

    Term by term in the order of the exits, each product added and then rounded to float32 at once,
    as processors with a fused multiply-add do: wherever it is computed it comes to the same.

    Args:
        seen: Logits (B, C) of the exits so far; None: not there, and has no weight.
        weights: w, one for each of them or more.
        temperature: τ.

    Returns:
        Logits (B, C), float32.
    """
    combined: NDArray[np.float32] | None = None
    for weight, logits_BC in zip(weights, seen, strict=False):
        if not weight or logits_BC is None:
            continue
        term_BC = logits_BC.astype(np.float64)
        term_BC *= np.float32(weight / temperature)
        if combined is not None:
            term_BC += combined
        combined = term_BC.astype(np.float32)
    assert combined is not None, "weights sum to 1"
    return combined


# The reductions are called by their own names: for one image, what `max` and `sum` do around them
# takes longer than they do.


def _shifted(logits_BC: NDArray[Any]) -> NDArray[np.float64]:
    """Logits relative to the largest: no exponential overflows."""
    with np.errstate(invalid="ignore"):  # ∞ − ∞ is NaN, and is told as that
        wide_BC = logits_BC.astype(np.float64)
        wide_BC -= np.maximum.reduce(wide_BC, axis=-1, keepdims=True)
    return wide_BC


def log_softmax(logits_BC: NDArray[Any]) -> NDArray[np.float64]:
    """log p, (B, C), in float64."""
    log_p_BC = _shifted(logits_BC)
    log_p_BC -= np.log(np.exp(log_p_BC).sum(-1, keepdims=True))
    return log_p_BC


def softmax(logits_BC: NDArray[Any]) -> NDArray[np.float64]:
    """p, (B, C), in float64."""
    p_BC = _shifted(logits_BC)
    np.exp(p_BC, out=p_BC)
    p_BC /= np.add.reduce(p_BC, axis=-1, keepdims=True)
    return p_BC


def max_prob(logits_BC: NDArray[Any]) -> NDArray[np.floating]:
    """The largest probability."""
    largest_B: NDArray[np.float64] = softmax(logits_BC).max(-1)
    return largest_B


def entropy(logits_BC: NDArray[Any]) -> NDArray[np.floating]:
    """1 + Σ p log p / log C, so that 1 is certain and 0 uniform."""
    log_p_BC = log_softmax(logits_BC).clip(-200)  # so that 0 · log 0 = 0
    negentropy_B = (np.exp(log_p_BC) * log_p_BC).sum(-1)
    certainty_B: NDArray[np.float64] = 1 + negentropy_B / math.log(logits_BC.shape[-1])
    return certainty_B.clip(0, 1)


def margin(logits_BC: NDArray[Any]) -> NDArray[np.floating]:
    """The largest probability minus the second."""
    two_B2 = np.partition(softmax(logits_BC), -2)[:, -2:]
    gap_B: NDArray[np.float64] = two_B2[:, 1] - two_B2[:, 0]
    return gap_B


MEASURES: dict[str, Measure] = {"max-prob": max_prob, "entropy": entropy, "margin": margin}
"""What a policy calls them."""
