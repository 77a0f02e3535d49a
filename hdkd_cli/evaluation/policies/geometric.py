"""The geometric family of thresholds: budgeted batch classification.

Huang et al., "Multi-Scale Dense Networks for Resource Efficient Image Classification", ICLR 2018;
the search is that of every public implementation after it.
K exits, N samples, P points of the family.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.errors import BudgetError
from hdkd_cli.evaluation.simulate import mean_cost, simulate
from hdkd_cli.evaluation.table import ExitTable

# ρ = p/20, p = 1..39
PUBLISHED_RHOS = tuple(Fraction(p, 20) for p in range(1, 40))


def target_counts(rho: Fraction, num_samples: int, num_exits: int) -> list[int]:
    """⌊N·q_k⌋ with shares q_k ∝ ρ^k, k = 1..K, normalised; in exact arithmetic.

    Args:
        rho: ρ > 0: below 1 most samples leave early, above 1 late.
        num_samples: N.
        num_exits: K.
    """
    a, b = rho.as_integer_ratio()
    weights = [a**k * b ** (num_exits - k) for k in range(1, num_exits + 1)]
    total = sum(weights)
    return [num_samples * weight // total for weight in weights]


def release(table: ExitTable, counts_PK: NDArray[np.int64]) -> NDArray[np.float32]:
    """Thresholds at which the wanted numbers of samples leave, exit by exit.

    Among the samples not yet released, by falling confidence, the count-th sets the threshold, and
    all that reach it are released, ties included. An exit is unused (+inf) where its count is zero
    or fewer samples remain.

    Args:
        table: The samples.
        counts_PK: How many should leave at each exit; the last exit's entry is not read.

    Returns:
        Thresholds (P, K−1).
    """
    num_points, last = len(counts_PK), table.num_exits - 1
    thresholds_PK = np.full((num_points, last), np.inf, np.float32)
    waiting_PN = np.ones((num_points, table.num_samples), np.bool_)
    for k in range(last):
        confidence_N, order_N = table.confidence_KN[k], table.order_KN[k]
        rank_PN = waiting_PN[:, order_N].cumsum(axis=1, dtype=np.int32)
        count_P = counts_PK[:, k]
        used_P = (count_P > 0) & (count_P <= rank_PN[:, -1])
        # The first place where the running number of waiting samples reaches the count.
        place_P = (rank_PN >= count_P[:, None]).argmax(axis=1)
        thresholds_PK[used_P, k] = confidence_N[order_N[place_P[used_P]]]
        waiting_PN &= confidence_N < thresholds_PK[:, k, None]
    return thresholds_PK


def family(table: ExitTable, rhos: Sequence[Fraction]) -> NDArray[np.float32]:
    """Thresholds (P, K−1) of the members ρ of the family."""
    return release(table, _counts(table, rhos))


def limits(table: ExitTable) -> NDArray[np.float32]:
    """Thresholds (2, K−1) of what closes the family: all leave at exit 0 (ρ → 0), or none before
    the last (ρ → ∞)."""
    all_first = [table.num_samples] + [0] * (table.num_exits - 1)
    return release(table, np.array([all_first, [0] * table.num_exits]))


def _counts(table: ExitTable, rhos: Sequence[Fraction]) -> NDArray[np.int64]:
    counts = [target_counts(rho, table.num_samples, table.num_exits) for rho in rhos]
    return np.array(counts, np.int64)


def within_budget(table: ExitTable, budget_macs: float) -> NDArray[np.float32]:
    """Thresholds (K−1,) of the member of the family with the largest mean cost ≤ the budget.

    The family is closed by its `limits`. The cost is a step function of ρ that rises, but for
    single samples and ties: a grid narrows down where it crosses the budget until nothing lies
    between, and the best member that was seen anywhere is taken.

    Args:
        table: The samples.
        budget_macs: Mean cost not to be exceeded.

    Raises:
        BudgetError: the budget is below the cost of the first exit.
    """
    if budget_macs < table.macs_K[0]:
        raise BudgetError(
            f"a budget of {budget_macs:,.0f} MACs: the first exit already costs "
            f"{table.macs_K[0]:,}, no policy can be cheaper"
        )
    best: NDArray[np.float32]
    none_early: NDArray[np.float32]
    best, none_early = limits(table)
    if budget_macs >= table.macs_K[-1]:
        return none_early
    best_cost = float(table.macs_K[0])
    # Outside these bounds the counts no longer change.
    low, high = -math.log(2 * table.num_samples), math.log(2 * table.num_samples)
    while True:
        grid = np.linspace(low, high, 17)
        counts_PK = _counts(table, [Fraction(math.exp(x)) for x in grid])
        thresholds_PK = release(table, counts_PK)
        cost_P = mean_cost(simulate(table, thresholds_PK).count_PK, table.macs_K)
        affordable = np.flatnonzero(cost_P <= budget_macs)
        if affordable.size == 0:
            return best
        dearest = affordable[cost_P[affordable].argmax()]
        if cost_P[dearest] > best_cost:
            best, best_cost = thresholds_PK[dearest], float(cost_P[dearest])
        if len(np.unique(counts_PK, axis=0)) <= 2:
            return best
        # At the upper bound no sample leaves early, which costs too much: there is a next point.
        low, high = grid[affordable[-1]], grid[affordable[-1] + 1]
