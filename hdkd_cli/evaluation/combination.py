"""Combining exits: at exit k the logits of exits 0..k are all there, and averaging them is free.

One definition for every kind: p_k = softmax( Σ_{j≤k} w_kj z_j / τ_k ), the rows of w non-negative
with sum 1, τ_k > 0. K exits, B samples of a batch, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.choices import FixedCombinationKind
from hdkd_cli.evaluation.measures import combine
from hdkd_cli.evaluation.policy import Combination
from hdkd_cli.evaluation.scores import Scores

# Logits handled at a time: few enough to stay in the processor's cache.
_CHUNK_ELEMENTS = 2**17


def fixed_combination(kind: FixedCombinationKind, macs_K: Sequence[int]) -> Combination:
    """The combination of a kind that needs no fitting.

    ``single`` reads exit k alone (the published protocol), ``mean`` weighs the exits so far
    equally, ``cost-weighted`` by their cost, w_kj ∝ f_j (after Meronen et al., WACV 2024). What
    has to be fitted is in `fitted`.

    Args:
        kind: Which.
        macs_K: Cost of each exit.
    """
    num_exits = len(macs_K)

    def row(k: int) -> tuple[float, ...]:
        raw = {
            "single": [0] * k + [1],
            "mean": [1] * (k + 1),
            "cost-weighted": list(macs_K[: k + 1]),
        }[kind]
        return tuple(w / sum(raw) for w in raw) + (0.0,) * (num_exits - 1 - k)

    return Combination(kind=kind, weights=tuple(row(k) for k in range(num_exits)))


def chunks(scores: Scores) -> Iterator[slice]:
    """All samples, a few at a time."""
    step = max(1, _CHUNK_ELEMENTS // scores.num_classes)
    for start in range(0, scores.num_samples, step):
        yield slice(start, start + step)


def combined_chunks(
    scores: Scores, k: int, combination: Combination, temperature: float = 1.0
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Exit k's combined logits a few samples at a time: (which samples, logits_BC)."""
    for samples in chunks(scores):
        seen = scores.logits_KNC[: k + 1, samples]
        yield samples, combine(list(seen), combination.weights[k], temperature)
