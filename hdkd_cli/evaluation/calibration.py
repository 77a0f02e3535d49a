"""From the scores of a held-out split to an exit policy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.evaluation.compatibility import refuse_test_split
from hdkd_cli.evaluation.geometric import PUBLISHED_RHOS, family, within_budget
from hdkd_cli.evaluation.policy import (
    CombinationKind,
    ConfidenceKind,
    ExitPolicy,
    FittedOn,
    OperatingPoint,
)
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.simulate import mean_cost, simulate
from hdkd_cli.evaluation.table import tabulate
from hdkd_cli.evaluation.temperature import fit_temperatures


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
    refuse_test_split(scores)
    weights = fixed_combination(combination, scores.macs_K)
    temperatures = fit_temperatures(scores, weights) if temperature else (1.0,) * scores.num_exits
    table = tabulate(scores, weights, temperatures, confidence)
    thresholds_PK = (
        np.stack([within_budget(table, budget) for budget in budgets_macs])
        if budgets_macs
        else family(table, PUBLISHED_RHOS)
    )
    result = simulate(table, thresholds_PK)
    macs_P = mean_cost(result.count_PK, table.macs_K)
    targets: Sequence[float | None] = budgets_macs or [None] * len(thresholds_PK)
    return ExitPolicy(
        kind="geometric",
        confidence=confidence,
        combination=weights,
        temperatures=temperatures,
        points=tuple(
            OperatingPoint(
                target_macs=target,
                thresholds=tuple(None if t == np.inf else t for t in thresholds_PK[p].tolist()),
                val_macs=float(macs_P[p]),
                val_top1_pct=float(result.top1_pct_P[p]),
            )
            for p, target in enumerate(targets)
        ),
        fitted_on=FittedOn(
            checkpoint_sha256=scores.meta.get("checkpoint_sha256"),
            split=scores.meta.get("split"),
            split_sha256=scores.meta.get("split_sha256"),
            samples=scores.num_samples,
        ),
    )
