"""One operating point out of a family (docs/concepts/policies-and-guarantees.md)."""

from __future__ import annotations

import numpy as np

from hdkd_cli.evaluation.policies.geometric import within_budget
from hdkd_cli.evaluation.policy import ExitPolicy, OperatingPoint
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
    return OperatingPoint(
        target_macs=budget_macs,
        thresholds=tuple(None if t == np.inf else t for t in thresholds_K.tolist()),
        val_macs=float(mean_cost(result.count_PK, table.macs_K)[0]),
        val_top1_pct=float(result.top1_pct_P[0]),
    )
