"""What policies work on: confidence and prediction of every sample at every exit.

K exits, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.evaluation.combination import combined_chunks
from hdkd_cli.evaluation.confidence import confidence
from hdkd_cli.evaluation.policy import Combination
from hdkd_cli.evaluation.scores import Scores


@dataclass(frozen=True, eq=False)
class ExitTable:
    """Scores reduced to what decides about leaving.

    Attributes:
        confidence_KN: Confidence of each sample at each exit.
        prediction_KN: Predicted class.
        labels_N: True class; no policy looks at it when it decides about a sample.
        macs_K: Cost of leaving at each exit.
    """

    confidence_KN: NDArray[np.float32]
    prediction_KN: NDArray[np.int64]
    labels_N: NDArray[np.int64]
    macs_K: tuple[int, ...]

    @property
    def num_exits(self) -> int:
        """K."""
        return len(self.confidence_KN)

    @property
    def num_samples(self) -> int:
        """N."""
        return len(self.labels_N)

    @cached_property
    def correct_KN(self) -> NDArray[np.bool_]:
        """Whether each exit is right about each sample."""
        correct_KN: NDArray[np.bool_] = self.prediction_KN == self.labels_N
        return correct_KN

    @cached_property
    def order_KN(self) -> NDArray[np.int64]:
        """Samples by falling confidence, at each exit."""
        return np.argsort(-self.confidence_KN, axis=1, kind="stable")


def tabulate(
    scores: Scores,
    combination: Combination,
    temperatures_K: Sequence[float],
    kind: str,
) -> ExitTable:
    """The table of ``scores``, read through a combination, temperatures and a confidence."""
    shape = (scores.num_exits, scores.num_samples)
    confidence_KN = np.empty(shape, np.float32)
    prediction_KN = np.empty(shape, np.int64)
    for k, temperature in enumerate(temperatures_K):
        for samples, logits_BC in combined_chunks(scores, k, combination, temperature):
            confidence_KN[k, samples] = confidence(logits_BC, kind)
            prediction_KN[k, samples] = logits_BC.argmax(-1)
    return ExitTable(confidence_KN, prediction_KN, scores.labels_N, scores.macs_K)
