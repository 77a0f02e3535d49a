"""Temperature scaling (Guo et al., ICML 2017) of one exit. N samples, C classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.evaluation.combination import combined_chunks
from hdkd_cli.evaluation.measures import softmax
from hdkd_cli.evaluation.policy import Combination
from hdkd_cli.evaluation.scores import Scores

Chunk = tuple[slice, NDArray[np.float32]]

# Where samples are separable (or hopeless) the likelihood has no optimum: stop at these.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0


def fit_temperatures(scores: Scores, combination: Combination) -> tuple[float, ...]:
    """τ of every exit: the one with the lowest NLL of its combined logits on ``scores``."""
    temperatures: list[float] = []
    for k in range(scores.num_exits):
        chunks = list(combined_chunks(scores, k, combination))
        temperatures.append(fit_temperature(chunks, scores.labels_N))
    return tuple(temperatures)


def fit_temperature(
    chunks: Sequence[tuple[slice, NDArray[np.float32]]], labels_N: NDArray[np.int64]
) -> float:
    """argmin over τ of the mean of −log softmax(z/τ)_y, τ in [0.01, 100], to 1e-6.

    The NLL is convex in β = 1/τ; its first two derivatives are the mean and the variance of the
    logits under the model, minus those of the label. Newton's method on β, inside a bracket that
    its sign shrinks.

    Args:
        chunks: Which samples, and their logits (B, C).
        labels_N: True classes.
    """
    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if _derivatives(chunks, labels_N, low)[0] >= 0:
        return MAX_TEMPERATURE
    if _derivatives(chunks, labels_N, high)[0] <= 0:
        return MIN_TEMPERATURE
    beta = 1.0
    while high > low * (1 + 1e-9):
        slope, curvature = _derivatives(chunks, labels_N, beta)
        low, high = (low, beta) if slope > 0 else (beta, high)
        newton = beta - slope / curvature if curvature > 0 else math.nan
        if abs(newton - beta) <= 1e-4 * beta:  # its error is about the square of that
            return 1 / newton
        beta = newton if low < newton < high else math.sqrt(low * high)
    return 1 / beta


def _derivatives(
    chunks: Sequence[Chunk], labels_N: NDArray[np.int64], beta: float
) -> tuple[float, float]:
    """First and second derivative in β of the summed NLL."""
    slope = curvature = 0.0
    for samples, logits_BC in chunks:
        p_BC = softmax(logits_BC * np.float32(beta))
        # Relative to the label's logit, whose own term is then zero.
        centred_BC = logits_BC - np.take_along_axis(logits_BC, labels_N[samples, None], 1)
        weighted_BC = p_BC * centred_BC
        mean_B = weighted_BC.sum(-1)
        slope += float(mean_B.sum())
        curvature += float(np.vdot(weighted_BC, centred_BC) - np.vdot(mean_B, mean_B))
    return slope, curvature
