"""How much of a difference between two means is noise: percentile bootstrap over samples.

Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13. N, M samples;
V distinct values; R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """A difference of two means and its interval.

    Attributes:
        value: The difference that was observed.
        low: Lower end of the interval.
        high: Upper end.
        paired: Whether both sides were measured on the same samples.
    """

    value: float
    low: float
    high: float
    paired: bool

    @property
    def within_noise(self) -> bool:
        """Whether the interval reaches 0."""
        return self.low <= 0 <= self.high


def paired_difference(ours_N: ArrayLike, theirs_N: ArrayLike, *, seed: int = 0) -> Difference:
    """mean(ours) − mean(theirs) on the same samples, with its 95 % interval.

    Args:
        ours_N: One value per sample (whether it was right, say).
        theirs_N: The same samples' values on the other side, in the same order.
        seed: Of the resampling: the same interval every time.
    """
    assert np.shape(ours_N) == np.shape(theirs_N)
    difference_N = np.asarray(ours_N, np.float64) - np.asarray(theirs_N, np.float64)
    means_R = _resampled_means(difference_N, np.random.default_rng(seed))
    return Difference(float(difference_N.mean()), *_interval(means_R), paired=True)


def unpaired_difference(ours_N: ArrayLike, theirs_M: ArrayLike, *, seed: int = 0) -> Difference:
    """mean(ours) − mean(theirs) on different samples, with its 95 % interval."""
    left_N, right_M = np.asarray(ours_N, np.float64), np.asarray(theirs_M, np.float64)
    random = np.random.default_rng(seed)
    means_R = _resampled_means(left_N, random) - _resampled_means(right_M, random)
    value = float(left_N.mean() - right_M.mean())
    return Difference(value, *_interval(means_R), paired=False)


def _resampled_means(
    values_N: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.float64]:
    """Means of R resamples with replacement, (R,).

    Drawing N samples decides only how often each distinct value occurs, a multinomial count: for
    right and wrong answers this costs three numbers a resample instead of N.
    """
    values_V, count_V = np.unique(values_N, return_counts=True)
    drawn_RV = random.multinomial(len(values_N), count_V / len(values_N), size=RESAMPLES)
    means_R: NDArray[np.float64] = drawn_RV @ values_V / len(values_N)
    return means_R


def _interval(means_R: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(means_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
