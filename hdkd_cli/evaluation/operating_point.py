"""One operating point: out of a family (docs/concepts/policies-and-guarantees.md), or where nobody
leaves early."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.evaluation.policies.geometric import within_budget
from hdkd_cli.evaluation.policy import ExitPolicy, FittedOn, OperatingPoint
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.simulate import mean_cost, simulate
from hdkd_cli.evaluation.table import tabulate


def geometric_point(policy: ExitPolicy, scores: Scores, budget_macs: float) -> OperatingPoint:
    """The member of the geometric family with the largest mean cost within a budget.

    Args:
        policy: Confidence, combination and temperatures.
        scores: Of the validation split.
        budget_macs: Mean cost not to be exceeded.

    Raises:
        BudgetError: the budget is below the cost of the first exit.
    """
    table = tabulate(scores, policy.combination, policy.temperatures, policy.confidence)
    thresholds_K = within_budget(table, budget_macs)
    result = simulate(table, thresholds_K[None])
    times = policy.times
    return OperatingPoint(
        target_macs=budget_macs,
        thresholds=tuple(None if t == np.inf else t for t in thresholds_K.tolist()),
        val_macs=float(mean_cost(result.count_PK, table.macs_K)[0]),
        val_seconds=None if times is None else float(times.mean(result.count_PK)[0]),
        val_top1_pct=float(result.top1_pct_P[0]),
    )


def everybody_stays(policy: ExitPolicy) -> OperatingPoint:
    """The point at which all samples go to the last exit: what early exit is compared with.

    It gives the full network's answers, and runs no head that they do not need.
    """
    return policy.points[0].model_copy(update={"thresholds": (None,) * (policy.num_exits - 1)})


def last_exit(macs_K: Sequence[int]) -> ExitPolicy:
    """What stands in for a missing policy: all images take the last exit. Fitted on nothing.

    Args:
        macs_K: Cost of each exit.
    """
    nowhere = (None,) * (len(macs_K) - 1)
    point = OperatingPoint(
        target_macs=None, thresholds=nowhere, val_macs=macs_K[-1], val_top1_pct=0
    )
    return ExitPolicy(
        kind="geometric",
        confidence="max-prob",
        combination=fixed_combination("single", macs_K),
        temperatures=(1.0,) * len(macs_K),
        points=(point,),
        fitted_on=FittedOn(checkpoint_sha256=None, split=None, samples=1),
    )
