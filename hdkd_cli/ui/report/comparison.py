"""Runs side by side: differences to the first run with their noise, and spread over seeds.

K exits, N samples, B budgets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.errors import BudgetError
from hdkd_cli.evaluation.bootstrap import Difference, paired_difference, unpaired_difference
from hdkd_cli.settings.keys import leaves
from hdkd_cli.ui.report.content import BudgetCurve, Evaluation, RunContent, printable
from hdkd_cli.ui.report.facts import setting_rows

AVERAGED_BUDGETS = 33  # what an average over budgets goes over
SHOWN_BUDGETS = 5

# Runs that differ in these alone are the same experiment with another seed.
_SEED_KEYS = frozenset({"training.seed", "training.device", "data.root", "data.download"})


@dataclass(frozen=True)
class Compared:
    """One measurement of two runs.

    Attributes:
        what: What is compared: an exit, a policy at a budget.
        first_pct: Accuracy of the first run.
        other_pct: Accuracy of the other.
        difference: Other minus first, in percentage points.
    """

    what: str
    first_pct: float
    other_pct: float
    difference: Difference

    @property
    def verdict(self) -> str:
        """In words: whether the difference is more than noise."""
        if self.difference.within_noise:
            return "within noise"
        return "higher" if self.difference.value > 0 else "lower"

    def record(self) -> dict[str, str | float]:
        """It as a row of a table."""
        return {
            "what": self.what,
            "first_pct": self.first_pct,
            "other_pct": self.other_pct,
            "difference_pct": self.difference.value,
            "low_pct": self.difference.low,
            "high_pct": self.difference.high,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Spread:
    """One measurement over several seeds of the same settings.

    Attributes:
        what: What is measured.
        values_pct: Accuracy of each seed.
    """

    what: str
    values_pct: tuple[float, ...]

    @property
    def mean_pct(self) -> float:
        """Their mean."""
        return mean(self.values_pct)

    @property
    def deviation_pct(self) -> float:
        """Their standard deviation (n − 1)."""
        return stdev(self.values_pct)

    def record(self) -> dict[str, str | float]:
        """It as a row of a table."""
        return {
            "what": self.what,
            "mean_pct": self.mean_pct,
            "deviation_pct": self.deviation_pct,
            "low_pct": min(self.values_pct),
            "high_pct": max(self.values_pct),
        }


def compare(first: Evaluation, other: Evaluation) -> list[Compared]:
    """Exit by exit, and with each policy both have at equal budgets; costs of each one's own."""
    paired = first.split_sha256 is not None and first.split_sha256 == other.split_sha256
    difference = paired_difference if paired else unpaired_difference
    return [
        Compared(what, float(ours_N.mean()), float(theirs_N.mean()), difference(theirs_N, ours_N))
        for (what, ours_N), (_, theirs_N) in zip(
            _measurements(first, [first, other]), _measurements(other, [first, other]), strict=True
        )
    ]


def differing_settings(runs: Sequence[RunContent]) -> list[tuple[str, ...]]:
    """(key, value in each run) of every setting that is not the same in all of them."""
    values = [{key: value for key, value, _ in setting_rows(run)} for run in runs]
    keys = dict.fromkeys(key for of_run in values for key in of_run)
    rows = [(key, *(of_run.get(key, "") for of_run in values)) for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def seed_groups(runs: Sequence[RunContent]) -> list[list[RunContent]]:
    """Runs of equal settings but for the seed: groups of two or more seeds, each seed once."""
    groups: dict[str, dict[int, RunContent]] = {}
    for run in runs:
        if run.evaluation is not None:
            settings = {k: v for k, v in leaves(run.settings).items() if k not in _SEED_KEYS}
            group = groups.setdefault(repr(sorted(settings.items())), {})
            group.setdefault(run.settings.training.seed, run)
    return [list(group.values()) for group in groups.values() if len(group) > 1]


def spread(group: Sequence[RunContent]) -> list[Spread]:
    """Accuracy of each exit, and of each policy at budgets, over the seeds of a group."""
    evaluations = [run.evaluation for run in group if run.evaluation is not None]
    measured = [list(_measurements(one, evaluations)) for one in evaluations]
    return [
        Spread(row[0][0], tuple(float(values_N.mean()) for _, values_N in row))
        for row in zip(*measured, strict=True)
    ]


def _measurements(
    one: Evaluation, among: Sequence[Evaluation]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """(what, 100 where a sample is right and 0 where not) for all that ``among`` have in common."""
    for k in range(min(each.table.num_exits for each in among)):
        yield f"exit {k + 1}", _pct(one.table.correct_KN[k])
    names = set.intersection(*({curve.name for curve in each.curves} for each in among))
    low = max(each.table.macs_K[0] for each in among)
    high = min(each.table.macs_K[-1] for each in among)
    if low >= high:
        return  # no budget leaves a choice to all
    for curve in sorted(one.curves, key=lambda curve: curve.name):
        if curve.name not in names:
            continue
        name = printable(curve.name)
        for budget in np.linspace(low, high, SHOWN_BUDGETS).tolist():
            what = f"{name}, budget {budget / 1e6:.2f} M"
            yield what, _pct(_correct_within(curve, budget))
        budgets = np.linspace(low, high, AVERAGED_BUDGETS).tolist()
        right_BN = np.stack([_correct_within(curve, budget) for budget in budgets])
        what = f"{name}, mean of {AVERAGED_BUDGETS} budgets to {high / 1e6:.2f} M"
        yield what, _pct(right_BN.mean(axis=0))


def _pct(right_N: NDArray[Any]) -> NDArray[np.float64]:
    return 100 * right_N.astype(np.float64)


def _correct_within(curve: BudgetCurve, budget_macs: float) -> NDArray[np.bool_]:
    """Who is classified correctly, (N,), at the best validation point within the budget.

    Where a budget is below the policy's cheapest point, everybody leaves at the first exit.
    """
    try:
        point = curve.policy.select(budget_macs)
    except BudgetError:
        first_N: NDArray[np.bool_] = curve.table.correct_KN[0]
        return first_N
    correct_N: NDArray[np.bool_] = curve.correct_PN[curve.policy.points.index(point)]
    return correct_N
