"""Thresholds searched for the best accuracy at a cost, beyond the geometric family.

Maximises mean_i a_{i,e_i} − μ · mean_i f_{e_i} by block-coordinate ascent on the thresholds, for
many prices μ at once, started from the geometric family; what it finds is a path of thresholds from
the cheapest to the most accurate, and a budget is spent by going as far along it as it allows.

Right and wrong answers of a few thousand samples are noisy: thresholds fitted to them lose on new
samples what they win on the old. A policy sees nothing of a sample but its confidences c_i, so its
expected accuracy is also that of P(a_ik = 1 | c_i), and the search climbs on a smooth estimate of
that. The answers themselves decide only at the end, between what was found and the geometric
points: on the split it is fitted on, no budget is worse off than with those.

K exits, N samples, M prices, P points, B budgets, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.evaluation.policies.geometric import PUBLISHED_RHOS, family, limits, within_budget
from hdkd_cli.evaluation.simulate import mean_cost, simulate
from hdkd_cli.evaluation.table import ExitTable

Floats = NDArray[np.float64]
Thresholds = NDArray[np.float32]

# Accuracy that the whole network's cost is worth: none, and from very little to more than there is.
_PRICES = np.concatenate([[0.0], np.geomspace(1e-3, 10, 24)])
_FAMILY_BUDGETS = 33
_MAX_SWEEPS = 30
_BISECTIONS = 10


def optimal_family(table: ExitTable) -> Thresholds:
    """Points (P, K−1) of rising cost and accuracy: what none of the others seen is better than.

    Seen are 33 equally spaced budgets of the searched path, and the 39 published points.
    """
    budgets_B = np.linspace(table.macs_K[0], table.macs_K[-1], _FAMILY_BUDGETS)
    published_PK = family(table, PUBLISHED_RHOS)
    searched_BK = along(table, best_path(table, published_PK), budgets_B)
    seen_PK = np.concatenate([searched_BK, published_PK])
    return seen_PK[_front(*_cost_and_accuracy(table, seen_PK))]


def optimal_within(table: ExitTable, budgets: Sequence[float]) -> Thresholds:
    """A point for each budget, (B, K−1): the most accurate of the searched and geometric ones.

    Raises:
        BudgetError: a budget is below the cost of the first exit.
    """
    geometric_BK = np.stack([within_budget(table, budget) for budget in budgets])
    published_PK = family(table, PUBLISHED_RHOS)
    searched_BK = along(table, best_path(table, published_PK), np.array(budgets))
    chosen = []
    for b, budget in enumerate(budgets):
        seen_PK = np.vstack([searched_BK[b], geometric_BK[b], published_PK])
        cost_P, accuracy_P = _cost_and_accuracy(table, seen_PK)
        chosen.append(seen_PK[np.where(cost_P <= budget, accuracy_P, -1).argmax()])
    return np.stack(chosen)


def _cost_and_accuracy(table: ExitTable, thresholds_PK: Thresholds) -> tuple[Floats, Floats]:
    result = simulate(table, thresholds_PK)
    return mean_cost(result.count_PK, table.macs_K), result.top1_pct_P


def _front(cost_P: Floats, worth_P: Floats) -> list[int]:
    """Indices of the points that are better than every cheaper one, by cost."""
    front: list[int] = []
    for p in np.lexsort((-worth_P, cost_P)).tolist():
        if not front or worth_P[p] > worth_P[front[-1]]:
            front.append(p)
    return front


def expected_correct(table: ExitTable) -> Floats:
    """P(a_ik = 1 | c_i), (K, N): what an exit's answer is worth, as far as confidences tell.

    A logistic regression for each exit, on the log-odds of the confidences of all exits and their
    squares, with a slight pull to zero: an exit that is always right has an optimum too.
    """
    inside_KN = table.confidence_KN.astype(np.float64).clip(1e-4, 1 - 1e-4)
    odds_KN = _standardised(np.log(inside_KN / (1 - inside_KN)))
    features_FN = np.vstack([np.ones(table.num_samples), odds_KN, _standardised(odds_KN**2)])
    return np.stack([_logistic(features_FN, correct_N) for correct_N in table.correct_KN])


def _standardised(rows: Floats) -> Floats:
    centred: Floats = rows - rows.mean(axis=1, keepdims=True)
    centred /= centred.std(axis=1, keepdims=True).clip(1e-6)
    return centred


def _logistic(features_FN: Floats, correct_N: NDArray[np.bool_]) -> Floats:
    """Fitted probabilities (N,), by Newton's method."""
    weights_F = np.zeros(len(features_FN))
    p_N = np.full(len(correct_N), 0.5)
    for _ in range(25):
        gradient_F = features_FN @ (p_N - correct_N) + weights_F
        hessian_FF = (features_FN * (p_N * (1 - p_N))) @ features_FN.T + np.eye(len(weights_F))
        step_F = np.linalg.solve(hessian_FF, gradient_F)
        weights_F -= step_F
        p_N = 1 / (1 + np.exp(-(weights_F @ features_FN).clip(-30, 30)))
        if np.abs(step_F).max() < 1e-6:
            break
    return p_N


def ascend(
    table: ExitTable, value_KN: Floats, price_M: Floats, thresholds_MK: Thresholds
) -> Thresholds:
    """Block-coordinate ascent of mean(value at the exit taken) − price · mean(cost of it).

    With the other thresholds fixed, leaving at exit k gains a sample that reaches it its value
    there minus that of going on. Of the reachers by falling confidence, the prefix with the
    largest total gain leaves; it ends only between distinct confidences. The objective never
    falls, and the exits are swept from the last to the first until nothing changes.

    Args:
        table: The samples.
        value_KN: What an answer is worth; `ExitTable.correct_KN` counts right ones.
        price_M: What one unit of cost takes from the value, for each problem.
        thresholds_MK: Where each starts, (M, K−1).

    Returns:
        Thresholds (M, K−1).
    """
    thresholds_MK = thresholds_MK.copy()
    active = np.arange(len(price_M))
    for _ in range(_MAX_SWEEPS):
        swept = _sweep(table, value_KN, price_M[active], thresholds_MK[active])
        changed = (swept != thresholds_MK[active]).any(axis=1)
        thresholds_MK[active] = swept
        active = active[changed]
        if not active.size:
            break
    return thresholds_MK


def _sweep(
    table: ExitTable, value_KN: Floats, price_M: Floats, thresholds_MK: Thresholds
) -> Thresholds:
    last = table.num_exits - 1
    found_MK = thresholds_MK.copy()
    reach_MN = np.ones((len(price_M), table.num_samples), np.bool_)
    reaching = []
    for k in range(last):
        reaching.append(reach_MN)
        reach_MN = reach_MN & (table.confidence_KN[k] < thresholds_MK[:, k, None])

    def net_MN(k: int) -> Floats:
        worth_MN: Floats = value_KN[k] - price_M[:, None] * table.macs_K[k]
        return worth_MN

    going_on_MN = net_MN(last)
    for k in reversed(range(last)):
        confidence_N, order_N = table.confidence_KN[k], table.order_KN[k]
        leaving_MN = net_MN(k)
        gain_MN = np.where(reaching[k], leaving_MN - going_on_MN, 0)[:, order_N].cumsum(axis=1)
        ranked_N = confidence_N[order_N]
        gain_MN[:, :-1][:, ranked_N[:-1] == ranked_N[1:]] = -np.inf
        place_M = gain_MN.argmax(axis=1)
        worth_it_M = gain_MN[np.arange(len(place_M)), place_M] > 0
        found_MK[:, k] = np.where(worth_it_M, ranked_N[place_M], np.inf)
        np.copyto(going_on_MN, leaving_MN, where=confidence_N >= found_MK[:, k, None])
    return found_MK


def best_path(table: ExitTable, starts_PK: Thresholds) -> Thresholds:
    """The best thresholds found, (P, K−1): the upper-left hull of cost and expected accuracy.

    It begins with all samples leaving at the first exit and ends at the highest accuracy.

    Args:
        table: The samples.
        starts_PK: Where the searches may start, beside the `limits` of the geometric family.
    """
    value_KN = expected_correct(table)

    def measure(thresholds_PK: Thresholds) -> tuple[Floats, Floats]:
        result = simulate(table, thresholds_PK)
        value_PN = np.take_along_axis(value_KN, result.exit_PN, axis=0)
        return mean_cost(result.count_PK, table.macs_K), value_PN.mean(axis=1)

    starts_PK = np.concatenate([limits(table), starts_PK])
    cost_P, value_P = measure(starts_PK)
    price_M = _PRICES / table.macs_K[-1]
    best_M = (value_P - price_M[:, None] * cost_P).argmax(axis=1)
    found_PK = np.concatenate([starts_PK, ascend(table, value_KN, price_M, starts_PK[best_M])])
    return found_PK[_upper_hull(*measure(found_PK))]


def _upper_hull(cost_P: Floats, worth_P: Floats) -> list[int]:
    """Indices of the front's points between which no mixture of two others is better, by cost."""
    hull: list[int] = []
    for p in _front(cost_P, worth_P):
        while len(hull) > 1:
            a, b = hull[-2:]
            before = (worth_P[b] - worth_P[a]) * (cost_P[p] - cost_P[b])
            after = (worth_P[p] - worth_P[b]) * (cost_P[b] - cost_P[a])
            if before > after:
                break
            hull.pop()
        hull.append(p)
    return hull


def along(table: ExitTable, path_PK: Thresholds, budgets_B: Floats) -> Thresholds:
    """Thresholds (B, K−1) that spend each budget, and exceed none, on a path of rising cost.

    Between two points of the path the number of samples above each threshold moves evenly; a
    bisection finds how far the budget reaches. Beyond its end the path stands still. Cost need not
    rise evenly on the way: of what was tried within a budget, the costliest is kept.

    Args:
        table: The samples.
        path_PK: The path.
        budgets_B: Mean costs, none below that of the path's first point.
    """
    cost_P, _ = _cost_and_accuracy(table, path_PK)
    start_B = cost_P.searchsorted(budgets_B, side="right") - 1
    end_B = np.minimum(start_B + 1, len(path_PK) - 1)
    above_PK = _samples_above(table, path_PK)
    found_BK, found_cost_B = path_PK[start_B], cost_P[start_B]
    low_B, high_B = np.zeros(len(budgets_B)), np.ones(len(budgets_B))
    for _ in range(_BISECTIONS):
        middle_B = (low_B + high_B) / 2
        way_BK = middle_B[:, None] * (above_PK[end_B] - above_PK[start_B])
        tried_BK = _at_samples_above(table, above_PK[start_B] + np.rint(way_BK).astype(np.int64))
        cost_B, _ = _cost_and_accuracy(table, tried_BK)
        within_B = cost_B <= budgets_B
        better_B = within_B & (cost_B >= found_cost_B)
        found_BK[better_B], found_cost_B[better_B] = tried_BK[better_B], cost_B[better_B]
        low_B, high_B = np.where(within_B, middle_B, low_B), np.where(within_B, high_B, middle_B)
    return found_BK


def _samples_above(table: ExitTable, thresholds_PK: Thresholds) -> NDArray[np.int64]:
    """How many of all samples have at least the confidence of each threshold, (P, K−1)."""
    above_PK = np.empty(thresholds_PK.shape, np.int64)
    for k in range(table.num_exits - 1):
        rising_N = table.confidence_KN[k][table.order_KN[k, ::-1]]
        above_PK[:, k] = table.num_samples - rising_N.searchsorted(thresholds_PK[:, k])
    return above_PK


def _at_samples_above(table: ExitTable, above_PK: NDArray[np.int64]) -> Thresholds:
    """Thresholds (P, K−1) that at least so many of all samples reach; +inf for none."""
    thresholds_PK = np.full(above_PK.shape, np.inf, np.float32)
    for k in range(table.num_exits - 1):
        falling_N = table.confidence_KN[k][table.order_KN[k]]
        used_P = above_PK[:, k] > 0
        thresholds_PK[used_P, k] = falling_N[above_PK[used_P, k] - 1]
    return thresholds_PK
