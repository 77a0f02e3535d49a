"""From the scores of a held-out split to an exit policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.choices import CombinationKind, ConfidenceKind, GuaranteeKind, PolicyKind, RiskKind
from hdkd_cli.evaluation.anytime import auroc
from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.evaluation.compatibility import refuse_test_split
from hdkd_cli.evaluation.fitted import fitted_combination
from hdkd_cli.evaluation.geometric import PUBLISHED_RHOS, family, within_budget
from hdkd_cli.evaluation.optimal import optimal_family, optimal_within
from hdkd_cli.evaluation.policy import (
    Combination,
    ExitPolicy,
    FittedOn,
    Guarantee,
    OperatingPoint,
)
from hdkd_cli.evaluation.risk import last_safe, losses, promise, safe_to_fast
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.simulate import mean_cost, simulate
from hdkd_cli.evaluation.table import ExitTable, tabulate
from hdkd_cli.evaluation.temperature import fit_temperatures

# The published protocol reads exit k alone; nothing else has a reason to.
DEFAULT_COMBINATION: dict[PolicyKind, CombinationKind] = {
    "geometric": "single",
    "optimal": "cost-weighted",
    "risk": "cost-weighted",
}


def fit_combination(
    scores: Scores, kind: CombinationKind, *, temperature: bool
) -> tuple[Combination, tuple[float, ...]]:
    """The combination of a kind, and a temperature for each exit.

    Args:
        scores: What there is to be fitted is fitted on these.
        kind: Which; ``fitted`` always has its own temperatures.
        temperature: Fit the temperatures of the others too, instead of 1.
    """
    if kind == "fitted":
        return fitted_combination(scores)
    combination = fixed_combination(kind, scores.macs_K)
    ones = (1.0,) * scores.num_exits
    return combination, fit_temperatures(scores, combination) if temperature else ones


@dataclass(frozen=True)
class Reading:
    """How exits are read, fixed on one split: everything of a policy but its thresholds.

    Attributes:
        scores: The split.
        combination: Which logits an exit speaks with.
        temperatures: By what they are divided.
        confidence: What is compared with the thresholds.
    """

    scores: Scores
    combination: Combination
    temperatures: tuple[float, ...]
    confidence: ConfidenceKind

    @classmethod
    def fit(
        cls,
        scores: Scores,
        combination: CombinationKind,
        confidence: ConfidenceKind,
        temperature: bool,
    ) -> Reading:
        """Fit what there is to be fitted.

        Raises:
            SettingsError: the scores are of the test split.
        """
        refuse_test_split(scores)
        return cls(
            scores, *fit_combination(scores, combination, temperature=temperature), confidence
        )

    @cached_property
    def table(self) -> ExitTable:
        """The split, so read."""
        return self.read(self.scores)

    def read(self, scores: Scores) -> ExitTable:
        """Any scores, so read."""
        return tabulate(scores, self.combination, self.temperatures, self.confidence)

    def policy(
        self,
        kind: PolicyKind,
        thresholds_PK: NDArray[np.float32],
        budgets_macs: Sequence[float] = (),
        guarantee: Guarantee | None = None,
    ) -> ExitPolicy:
        """The policy with these thresholds.

        Args:
            kind: How they were found.
            thresholds_PK: Thresholds (P, K−1), +inf where an exit is unused.
            budgets_macs: What each point was made for; empty: for no budget.
            guarantee: What the points promise.
        """
        result = simulate(self.table, thresholds_PK)
        macs_P = mean_cost(result.count_PK, self.table.macs_K)
        meta = self.scores.meta
        return ExitPolicy(
            kind=kind,
            confidence=self.confidence,
            combination=self.combination,
            temperatures=self.temperatures,
            points=tuple(
                OperatingPoint(
                    target_macs=budgets_macs[p] if budgets_macs else None,
                    thresholds=tuple(None if t == np.inf else t for t in row),
                    val_macs=float(macs_P[p]),
                    val_top1_pct=float(result.top1_pct_P[p]),
                )
                for p, row in enumerate(thresholds_PK.tolist())
            ),
            fitted_on=FittedOn(
                checkpoint_sha256=meta.get("checkpoint_sha256"),
                split=meta.get("split"),
                split_sha256=meta.get("split_sha256"),
                samples=self.scores.num_samples,
                classes=self.scores.num_classes,
            ),
            val_auroc=tuple(map(auroc, self.table.confidence_KN, self.table.correct_KN)),
            guarantee=guarantee,
        )


def calibrate_geometric(
    scores: Scores,
    *,
    combination: CombinationKind,
    confidence: ConfidenceKind,
    temperature: bool,
    budgets_macs: Sequence[float],
) -> ExitPolicy:
    """The geometric policy (Huang et al., ICLR 2018), fitted on ``scores``.

    Args:
        scores: Scores of any split but test.
        combination: Which logits an exit speaks with.
        confidence: What is compared with the thresholds.
        temperature: Fit a temperature for each exit, instead of 1.
        budgets_macs: Mean costs to meet, one point each; none: the 39 published points.

    Raises:
        SettingsError: the scores are of the test split.
        BudgetError: a budget is below the cost of the first exit.
    """
    reading = Reading.fit(scores, combination, confidence, temperature)
    thresholds_PK = (
        np.stack([within_budget(reading.table, budget) for budget in budgets_macs])
        if budgets_macs
        else family(reading.table, PUBLISHED_RHOS)
    )
    return reading.policy("geometric", thresholds_PK, budgets_macs)


def calibrate_optimal(
    scores: Scores,
    *,
    combination: CombinationKind,
    confidence: ConfidenceKind,
    temperature: bool,
    budgets_macs: Sequence[float],
) -> ExitPolicy:
    """Thresholds searched for the best accuracy at a cost, fitted on ``scores``.

    Arguments and errors are those of `calibrate_geometric`; without budgets, a family of points
    from the cheapest to the most accurate.
    """
    reading = Reading.fit(scores, combination, confidence, temperature)
    thresholds_PK = (
        optimal_within(reading.table, budgets_macs)
        if budgets_macs
        else optimal_family(reading.table)
    )
    return reading.policy("optimal", thresholds_PK, budgets_macs)


def calibrate_risk(
    scores: Scores,
    calibration: Scores,
    *,
    combination: CombinationKind,
    confidence: ConfidenceKind,
    temperature: bool,
    guarantee: GuaranteeKind,
    loss: RiskKind,
    epsilon: float,
    delta: float,
) -> ExitPolicy:
    """The fastest thresholds that keep a promise about the risk of leaving early.

    Args:
        scores: Everything but the choice of the point is fixed on these; any split but test.
        calibration: Samples used for nothing else; `check_calibration` has a look at them.
        combination: Which logits an exit speaks with.
        confidence: What is compared with the thresholds.
        temperature: Fit a temperature for each exit, instead of 1.
        guarantee: Whether it holds with a probability (``ltt``) or on average (``crc``).
        loss: What the risk is the mean of.
        epsilon: The bound on the risk.
        delta: Probability that it fails, for ``ltt``.

    Raises:
        SettingsError: the scores are of the test split.
    """
    reading = Reading.fit(scores, combination, confidence, temperature)
    family_PK = safe_to_fast(reading.table)
    promised = promise(guarantee, loss, epsilon=epsilon, delta=delta, n=calibration.num_samples)
    place = last_safe(losses(reading.read(calibration), family_PK, loss), promised)
    return reading.policy("risk", family_PK[[place]], guarantee=promised)
