"""A policy on a table of scores: where samples leave, how many are right, what it costs.

Reads stored scores, so nothing runs; `EarlyExit` does the same to images and really stops.
K exits, N samples, P operating points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.evaluation.policy import ExitPolicy, OperatingPoint
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.table import ExitTable, tabulate
from hdkd_cli.records.evaluation import Budget, BudgetPoint


@dataclass(frozen=True, eq=False)
class Simulation:
    """Every sample's way out, at every operating point.

    Attributes:
        exit_PN: Exit taken.
        prediction_PN: Class predicted there.
        count_PK: Samples that leave at each exit.
        top1_pct_P: Accuracy.
    """

    exit_PN: NDArray[np.int64]
    prediction_PN: NDArray[np.int64]
    count_PK: NDArray[np.int64]
    top1_pct_P: NDArray[np.float64]


def threshold_array(points: Sequence[OperatingPoint]) -> NDArray[np.float32]:
    """Thresholds (P, K−1) with +inf for an unused exit, in the precision of confidences."""
    rows = [[np.inf if t is None else t for t in point.thresholds] for point in points]
    return np.array(rows, np.float32)


def choose_exits(
    confidence_KN: NDArray[np.float32], thresholds_PK: NDArray[np.float32]
) -> NDArray[np.int64]:
    """e_i = min{k : c_ik ≥ T_k}, (P, N); the last exit accepts all."""
    num_exits, num_samples = confidence_KN.shape
    assert thresholds_PK.shape[1] == num_exits - 1
    waiting_PN = np.ones((len(thresholds_PK), num_samples), np.bool_)
    passed_PN = np.zeros(waiting_PN.shape, np.int16)  # less to move than int64
    for k in range(num_exits - 1):
        waiting_PN &= confidence_KN[k] < thresholds_PK[:, k, None]
        passed_PN += waiting_PN
    return passed_PN.astype(np.int64)


def simulate(table: ExitTable, thresholds_PK: NDArray[np.float32]) -> Simulation:
    """Apply thresholds (P, K−1) to the samples of ``table``."""
    exit_PN = choose_exits(table.confidence_KN, thresholds_PK)
    prediction_PN = np.take_along_axis(table.prediction_KN, exit_PN, axis=0)
    correct_P = (prediction_PN == table.labels_N).sum(axis=1)
    counts = [(exit_PN == k).sum(axis=1) for k in range(table.num_exits)]
    return Simulation(
        exit_PN=exit_PN,
        prediction_PN=prediction_PN,
        count_PK=np.stack(counts, axis=1),
        top1_pct_P=100 * correct_P / table.num_samples,
    )


def mean_cost(count_PK: NDArray[np.int64], costs_K: Sequence[int]) -> NDArray[np.float64]:
    """Realised average cost Σ_k share_k · f_k, (P,), summed in integers."""
    cost_P: NDArray[np.float64] = count_PK @ np.array(costs_K, np.int64) / count_PK.sum(axis=1)
    return cost_P


def budget(policy: ExitPolicy, scores: Scores, *, run: str | None) -> Budget:
    """Budgeted batch classification: every point of ``policy`` on ``scores``.

    Args:
        policy: The policy; `check_policy` says whether it may be applied.
        scores: The split to evaluate on.
        run: The run's name for the record.

    Returns:
        The record; costs are realised averages.
    """
    table = tabulate(scores, policy.combination, policy.temperatures, policy.confidence)
    result = simulate(table, threshold_array(policy.points))
    means = {
        name: None if costs_K is None else mean_cost(result.count_PK, costs_K).tolist()
        for name, costs_K in (
            ("macs", scores.macs_K),
            ("macs_eager", scores.macs_eager_K),
            ("ops", scores.ops_K),
        )
    }
    times = policy.times
    means["expected_seconds"] = None if times is None else times.mean(result.count_PK).tolist()
    share_PK = result.count_PK / table.num_samples
    return Budget(
        run=run,
        split=scores.meta.get("split"),
        policy=policy.kind,
        samples=table.num_samples,
        points=tuple(
            BudgetPoint.model_validate(
                {
                    "target_macs": point.target_macs,
                    "target_seconds": point.target_seconds,
                    **{name: mean and mean[p] for name, mean in means.items()},
                    "top1_pct": float(result.top1_pct_P[p]),
                    "exit_share": share_PK[p].tolist(),
                    "thresholds": point.thresholds,
                }
            )
            for p, point in enumerate(policy.points)
        ),
        images=scores.meta.get("images"),
    )
