"""What trained networks get right on a split, as comparisons read it.

K exits, N samples, P operating points.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.errors import BudgetError
from hdkd_cli.evaluation.policy import ExitPolicy
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.simulate import simulate, threshold_array
from hdkd_cli.evaluation.table import tabulate


@dataclass(frozen=True, eq=False)
class Curve:
    """A policy on a split, as far as a comparison needs it.

    Attributes:
        policy: The policy.
        first_N: Whether the first exit is right about each sample, as the policy reads it.
        correct_PN: Whether each sample is classified correctly at each operating point.
    """

    policy: ExitPolicy
    first_N: NDArray[np.bool_]
    correct_PN: NDArray[np.bool_]

    @classmethod
    def of(cls, policy: ExitPolicy, scores: Scores) -> Curve:
        """The curve of ``policy`` on ``scores``."""
        table = tabulate(scores, policy.combination, policy.temperatures, policy.confidence)
        prediction_PN = simulate(table, threshold_array(policy.points)).prediction_PN
        return cls(policy, table.correct_KN[0], prediction_PN == table.labels_N)

    def within(self, budget_macs: float) -> NDArray[np.bool_]:
        """Which samples are right, (N,), at the best validation point within a budget.

        Below the policy's cheapest point all samples leave at the first exit [ours].
        """
        try:
            point = self.policy.select(budget_macs)
        except BudgetError:
            return self.first_N
        correct_N: NDArray[np.bool_] = self.correct_PN[self.policy.points.index(point)]
        return correct_N


@dataclass(frozen=True, eq=False)
class Answers:
    """What one trained network gets right on a split: all that a comparison needs to know.

    Attributes:
        name: What the comparison calls it; one of a kind.
        method: The group it belongs to where seeds are compared.
        seed: Seed of its training; None: unknown.
        run: Where it is.
        meta: What its scores say about themselves.
        labels_sha256: Fingerprint of the labels in their order.
        num_classes: C.
        macs_K: Cost of leaving at each exit.
        correct_KN: Whether each exit alone is right about each sample.
        curves: Name of a policy → its curve.
    """

    name: str
    method: str
    seed: int | None
    run: str
    meta: Mapping[str, str]
    labels_sha256: str
    num_classes: int
    macs_K: tuple[int, ...]
    correct_KN: NDArray[np.bool_]
    curves: Mapping[str, Curve]

    @classmethod
    def of(
        cls,
        scores: Scores,
        policies: Mapping[str, ExitPolicy],
        *,
        name: str,
        run: str,
        method: str = "",
        seed: int | None = None,
    ) -> Answers:
        """Reduce ``scores`` to what exits and ``policies`` get right."""
        correct_KN = scores.logits_KNC.argmax(-1) == scores.labels_N
        return cls(
            name=name,
            method=method,
            seed=seed,
            run=run,
            meta=scores.meta,
            labels_sha256=hashlib.sha256(scores.labels_N.tobytes()).hexdigest(),
            num_classes=scores.num_classes,
            macs_K=scores.macs_K,
            correct_KN=correct_KN,
            curves={key: Curve.of(policy, scores) for key, policy in policies.items()},
        )

    @property
    def static(self) -> bool:
        """Whether there is one exit only."""
        return len(self.macs_K) == 1


def unlike(first: Answers, other: Answers) -> str | None:
    """Why two networks cannot be compared; None if they were tested on the same images."""
    for what, field in (("data set", "dataset"), ("split", "split")):
        ours, theirs = first.meta.get(field), other.meta.get(field)
        if None not in (ours, theirs) and ours != theirs:
            return f"another {what} ({theirs}, not {ours})"
    if first.num_classes != other.num_classes:
        return f"other classes ({other.num_classes}, not {first.num_classes})"
    ours, theirs = first.meta.get("split_sha256"), other.meta.get("split_sha256")
    if None in (ours, theirs):
        return None if first.labels_sha256 == other.labels_sha256 else "other images"
    return None if ours == theirs else "other images of the split"
