"""Reliability diagrams: how often an exit is right when it is so sure. N samples, M bins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Reliability:
    """Samples in equal-width bins of confidence.

    Attributes:
        count_M: Samples.
        confidence_M: Their mean confidence; NaN in an empty bin.
        accuracy_M: Share of them that is right; NaN in an empty bin.
    """

    count_M: NDArray[np.int64]
    confidence_M: NDArray[np.float64]
    accuracy_M: NDArray[np.float64]


def reliability(
    confidence_N: NDArray[np.floating], correct_N: NDArray[np.bool_], bins: int
) -> Reliability:
    """The bins (i/M, (i+1)/M] that the expected calibration error averages over.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equations 2 to 4.
    """
    confidence_N = confidence_N.astype(np.float64)
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(np.int64) - 1, 0, bins - 1)
    count_M = np.bincount(bin_N, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            count_M=count_M,
            confidence_M=np.bincount(bin_N, weights=confidence_N, minlength=bins) / count_M,
            accuracy_M=np.bincount(bin_N, weights=correct_N, minlength=bins) / count_M,
        )
