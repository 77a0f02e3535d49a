"""Which classes a network knows, and what it takes the others for. N samples, C classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def confusion(
    labels_N: NDArray[np.int64], prediction_N: NDArray[np.int64], num_classes: int
) -> NDArray[np.int64]:
    """How many samples of a class (rows) were taken for which (columns), (C, C)."""
    pair_N = labels_N * num_classes + prediction_N
    return np.bincount(pair_N, minlength=num_classes**2).reshape(num_classes, num_classes)
