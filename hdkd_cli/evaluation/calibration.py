"""From the scores of a held-out split to an exit policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.choices import CombinationKind, GuaranteeKind, RiskKind
from hdkd_cli.evaluation.anytime import auroc
from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.evaluation.compatibility import refuse_test_split
from hdkd_cli.evaluation.fitted import fitted_combination
from hdkd_cli.evaluation.names import POLICY_NAMES
from hdkd_cli.evaluation.policies.geometric import PUBLISHED_RHOS, family, within_budget
from hdkd_cli.evaluation.policies.optimal import optimal_family, optimal_within
from hdkd_cli.evaluation.policies.risk import last_safe, losses, promise, safe_to_fast
from hdkd_cli.evaluation.policy import (
    Combination,
    ExitPolicy,
    FittedOn,
    Guarantee,
    OperatingPoint,
)
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.simulate import mean_cost, simulate
from hdkd_cli.evaluation.table import ExitTable, tabulate
from hdkd_cli.evaluation.temperature import fit_temperatures
from hdkd_cli.evaluation.times import SLACK, ExitTimes


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
        combination: How an exit uses the exits before it.
        temperatures: By what they are divided.
        confidence: What is compared with the thresholds.
    """

    scores: Scores
    combination: Combination
    temperatures: tuple[float, ...]
    confidence: str

    @classmethod
    def fit(
        cls,
        scores: Scores,
        combination: CombinationKind,
        confidence: str,
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

    @property
    def auroc_K(self) -> tuple[float | None, ...]:
        """How well each exit's confidence tells right from wrong answers; None: all are alike."""
        return tuple(map(auroc, self.table.confidence_KN, self.table.correct_KN))

    @property
    def auroc_settled_K(self) -> tuple[float | None, ...]:
        """The same for answers that the last exit would not mend: right, or wrong there too.

        That is what leaving early asks for: an image that no exit gets right may go at once.
        """
        settled_KN = self.table.correct_KN | ~self.table.correct_KN[-1]
        return tuple(map(auroc, self.table.confidence_KN, settled_KN))

    def read(self, scores: Scores) -> ExitTable:
        """Any scores, so read."""
        return tabulate(scores, self.combination, self.temperatures, self.confidence)

    def policy(
        self,
        kind: str,
        thresholds_PK: NDArray[np.float32],
        budgets_macs: Sequence[float] = (),
        guarantee: Guarantee | None = None,
        times: ExitTimes | None = None,
        budgets_seconds: Sequence[float] = (),
    ) -> ExitPolicy:
        """The policy with these thresholds.

        Args:
            kind: How they were found.
            thresholds_PK: Thresholds (P, K−1), +inf where an exit is unused.
            budgets_macs: What each point was made for; empty: for no budget.
            guarantee: What the points promise.
            times: What the thresholds are made to save.
            budgets_seconds: What each point was made for; empty: for no budget of time.
        """
        result = simulate(self.table, thresholds_PK)
        macs_P = mean_cost(result.count_PK, self.table.macs_K)
        seconds_P = None if times is None else times.mean(result.count_PK)
        meta = self.scores.meta
        return ExitPolicy(
            kind=kind,
            confidence=self.confidence,
            combination=self.combination,
            temperatures=self.temperatures,
            points=tuple(
                OperatingPoint(
                    target_macs=budgets_macs[p] if budgets_macs else None,
                    target_seconds=budgets_seconds[p] if budgets_seconds else None,
                    thresholds=tuple(None if t == np.inf else t for t in row),
                    val_macs=float(macs_P[p]),
                    val_seconds=None if seconds_P is None else float(seconds_P[p]),
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
            val_auroc=self.auroc_K,
            val_auroc_settled=self.auroc_settled_K,
            guarantee=guarantee,
            times=times,
        )


Thresholds = NDArray[np.float32]
"""(P, K−1), one row per operating point; +inf where an exit is unused."""


@dataclass(frozen=True)
class Search:
    """How a kind of policy finds its thresholds.

    Attributes:
        find: From a split as exits read it, and mean costs in MACs to meet (one point each; none:
            a family of points from cheap to accurate), to thresholds (P, K−1).
        combination: How an exit uses the exits before it, unless another is asked for.
        confidence: What is compared with the thresholds, likewise.
    """

    find: Callable[[ExitTable, Sequence[float]], Thresholds]
    combination: CombinationKind = "single"
    confidence: str = "max-prob"


def _geometric(table: ExitTable, budgets_macs: Sequence[float]) -> Thresholds:
    """Huang et al., ICLR 2018; without budgets the 39 published points."""
    if not budgets_macs:
        return family(table, PUBLISHED_RHOS)
    return np.stack([within_budget(table, macs) for macs in budgets_macs])


def _optimal(table: ExitTable, budgets_macs: Sequence[float]) -> Thresholds:
    return optimal_within(table, budgets_macs) if budgets_macs else optimal_family(table)


# The published protocol reads exit k alone; nothing else has a reason to.
_POLICIES = {
    "geometric": Search(_geometric, "single"),
    # benchmarks/results/confidences.json: margin beats the largest probability.
    "optimal": Search(_optimal, "cost-weighted", "margin"),
}
POLICIES: Mapping[str, Search] = MappingProxyType(_POLICIES)
"""Name → search. ``risk`` is none of them: it needs samples of its own, see `calibrate_risk`."""
RISK_COMBINATION: CombinationKind = "cost-weighted"
RISK_CONFIDENCE = "max-prob"


def register_policy(
    name: str,
    find: Callable[[ExitTable, Sequence[float]], Thresholds],
    *,
    combination: CombinationKind = "single",
) -> None:
    """Make a policy of one's own known, to ``Run.calibrate(name)`` and wherever policies are read.

    Args:
        name: What it is called: small letters, digits and hyphens.
        find: See `Search`.
        combination: See `Search`.

    Raises:
        ValueError: the name is taken, or is none.
    """
    POLICY_NAMES.add(name)
    _POLICIES[name] = Search(find, combination)


def fit_policy(
    kind: str,
    scores: Scores,
    *,
    combination: CombinationKind,
    confidence: str,
    temperature: bool,
    budgets_macs: Sequence[float],
    times: ExitTimes | None = None,
    budgets_seconds: Sequence[float] = (),
) -> ExitPolicy:
    """A policy of one of the kinds in ``POLICIES``, fitted on ``scores``.

    Args:
        kind: Which.
        scores: Scores of any split but test.
        combination: How an exit uses the exits before it.
        confidence: What is compared with the thresholds.
        temperature: Fit a temperature for each exit, instead of 1.
        budgets_macs: Mean costs to meet, one point each; none: a family of points.
        times: What exits cost, instead of their MACs; then ``budgets_macs`` has to be empty.
        budgets_seconds: The same as times per image.

    Raises:
        SettingsError: the scores are of the test split.
        BudgetError: a budget is below the cost of the first exit.
    """
    reading = Reading.fit(scores, combination, confidence, temperature)
    find = POLICIES[kind].find
    if times is None:
        return reading.policy(kind, find(reading.table, budgets_macs), budgets_macs)
    times.refuse_impossible(budgets_seconds)
    priced = replace(reading.table, macs_K=times.nanoseconds_K)
    thresholds_PK = find(priced, [1e9 * (seconds + SLACK) for seconds in budgets_seconds])
    return reading.policy(kind, thresholds_PK, times=times, budgets_seconds=budgets_seconds)


def calibrate_risk(
    scores: Scores,
    calibration: Scores,
    *,
    combination: CombinationKind,
    confidence: str,
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
        combination: How an exit uses the exits before it.
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
