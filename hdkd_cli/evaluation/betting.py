"""Where a mean lies at all times at once: testing by betting.

Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86(1),
2024 (arXiv:2010.09686), their diversified Kelly betting. Against "the mean of X in [0, 1] is at
most m", a fixed bet λ in [0, 1/m) turns every X into 1 + λ(X − m): whoever bets so gains nothing on
average if that is true. The mean of several such capitals is one again, and by Ville's inequality
it ever reaches 1/α with probability at most α. Our own choice are the 16 bets λ = c/m, constant in
time: the capital is then a function of how often each value was seen, and that is all that has to
be remembered.

Nothing but numpy is needed: an exported network carries this along in its ``run.py``.

V values that an image can have, D bets.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BETS_D = np.geomspace(0.004, 0.95, 16)  # c: from hardly above m to nearly 1
BISECTIONS = 50


class Interval(NamedTuple):
    """A mean, and where it lies in the long run, at all times at once."""

    mean: float
    low: float
    high: float


def log_capital(
    values_V: NDArray[np.float64], counts_V: NDArray[np.int64], mean: float
) -> NDArray[np.float64]:
    """Log of the capital won against "the mean is at most ``mean``", (...).

    Args:
        values_V: What an image can have, in [0, 1].
        counts_V: (..., V): how often each was seen.
        mean: Above 0.
    """
    log_gain_DV = np.log(1 - BETS_D[:, None] + BETS_D[:, None] * values_V / mean)
    log_won_D = np.asarray(counts_V) @ log_gain_DV.T
    most = log_won_D.max(axis=-1, keepdims=True)
    mean_won: NDArray[np.float64] = np.log(np.exp(log_won_D - most).mean(axis=-1)) + most[..., 0]
    return mean_won


def lower_bound(values_V: NDArray[np.float64], counts_V: NDArray[np.int64], alpha: float) -> float:
    """The mean is above this at all times, with probability 1 − ``alpha``.

    The capital falls as the mean that is bet against grows; where it is below 1/α begin the means
    that are not refuted.
    """
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        refuted = log_capital(values_V, counts_V, middle) >= -math.log(alpha)
        low, high = (middle, high) if refuted else (low, middle)
    return low


def interval(values_V: NDArray[np.float64], counts_V: NDArray[np.int64], alpha: float) -> Interval:
    """A confidence sequence for the mean: right at all times, with probability 1 − 2 ``alpha``."""
    return Interval(
        mean=float(counts_V @ values_V / counts_V.sum()),
        low=lower_bound(values_V, counts_V, alpha),
        high=1 - lower_bound(1 - values_V, counts_V, alpha),
    )
