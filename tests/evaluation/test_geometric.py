"""The published threshold search against itself written sample by sample."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from score_tables import exit_tables

from hdkd_cli.errors import BudgetError
from hdkd_cli.evaluation.policies.geometric import (
    PUBLISHED_RHOS,
    family,
    target_counts,
    within_budget,
)
from hdkd_cli.evaluation.simulate import mean_cost, simulate
from hdkd_cli.evaluation.table import ExitTable

ratios = st.fractions(Fraction(1, 50), 50, max_denominator=50)


def published_search(table, rho):
    """Thresholds, None where an exit is unused, by plain loops over the samples."""
    num_exits, num_samples = table.confidence_KN.shape
    shares = [rho**k for k in range(1, num_exits + 1)]
    waiting = list(range(num_samples))
    thresholds = []
    for k in range(num_exits - 1):
        confidence = table.confidence_KN[k].tolist()
        wanted = math.floor(num_samples * shares[k] / sum(shares))
        ranked = sorted(waiting, key=lambda i: -confidence[i])
        if wanted == 0 or len(ranked) < wanted:
            thresholds.append(None)
            continue
        thresholds.append(confidence[ranked[wanted - 1]])
        waiting = [i for i in waiting if confidence[i] < thresholds[-1]]
    return thresholds


def none_for_infinity(thresholds_K1):
    return [None if t == math.inf else t for t in thresholds_K1.tolist()]


@given(exit_tables(), st.lists(ratios, min_size=1, max_size=4))
@settings(deadline=None, max_examples=150)
def test_thresholds_are_those_of_the_published_search(table, rhos):
    found = family(table, rhos)
    assert found.shape == (len(rhos), table.num_exits - 1)
    for rho, row in zip(rhos, found, strict=True):
        assert none_for_infinity(row) == published_search(table, rho)


def test_the_published_points():
    assert [float(rho) for rho in PUBLISHED_RHOS] == pytest.approx(np.arange(0.05, 1.96, 0.05))


@given(ratios, st.integers(1, 10**6), st.integers(1, 12))
def test_target_counts(rho, num_samples, num_exits):
    counts = target_counts(rho, num_samples, num_exits)
    shares = [rho**k for k in range(1, num_exits + 1)]
    assert counts == [math.floor(num_samples * q / sum(shares)) for q in shares]
    assert num_samples - num_exits < sum(counts) <= num_samples


def test_counts_do_not_lose_a_sample_to_rounding():
    """49 · (1/49) is below 1 in floating point."""
    assert target_counts(Fraction(1), 49, 49) == [1] * 49


@given(exit_tables(), ratios)
@settings(deadline=None)
def test_shares_exceed_their_targets_only_through_ties(table, rho):
    """Of those an exit releases, fewer than its target are surer than its threshold."""
    thresholds_PK = family(table, [rho])
    result = simulate(table, thresholds_PK)
    targets = target_counts(rho, table.num_samples, table.num_exits)
    for k, threshold in enumerate(thresholds_PK[0]):
        released = result.exit_PN[0] == k
        if threshold == np.inf:
            assert not released.any()
        else:
            assert released.sum() >= targets[k]
            assert (released & (table.confidence_KN[k] > threshold)).sum() < targets[k]


def distinct_table(seed, num_exits, num_samples):
    """A table in which no two confidences of an exit tie."""
    random = np.random.default_rng(seed)
    ranks = np.stack([random.permutation(num_samples) for _ in range(num_exits)])
    return ExitTable(
        confidence_KN=((ranks + 1) / (num_samples + 1)).astype(np.float32),
        prediction_KN=random.integers(0, 3, (num_exits, num_samples)),
        labels_N=random.integers(0, 3, num_samples),
        macs_K=tuple(int(x) for x in random.integers(1, 100, num_exits).cumsum()),
    )


distinct_tables = st.builds(
    distinct_table, st.integers(0, 2**32 - 1), st.integers(2, 4), st.integers(2, 20)
)


@given(distinct_tables, ratios)
@settings(deadline=None)
def test_without_ties_shares_are_the_targets(table, rho):
    counts = simulate(table, family(table, [rho])).count_PK[0].tolist()
    assert counts[:-1] == target_counts(rho, table.num_samples, table.num_exits)[:-1]


def cost_of(table, thresholds_K1):
    return float(mean_cost(simulate(table, thresholds_K1[None]).count_PK, table.macs_K)[0])


@given(exit_tables(), st.floats(0, 1.2))
@settings(deadline=None)
def test_a_budget_is_never_exceeded(table, position):
    first, last = table.macs_K[0], table.macs_K[-1]
    budget = first + position * (last - first)
    thresholds_K1 = within_budget(table, budget)
    assert cost_of(table, thresholds_K1) <= budget
    if budget >= last:
        assert (thresholds_K1 == np.inf).all()


@given(distinct_tables, st.floats(0, 1))
@settings(deadline=None, max_examples=20)
def test_a_budget_is_spent(table, position):
    """No member of a dense sweep over ρ costs more within the budget, but for a single sample."""
    first, last = table.macs_K[0], table.macs_K[-1]
    budget = first + position * (last - first)
    bound = math.log(2 * table.num_samples)
    rhos = [Fraction(math.exp(x)) for x in np.linspace(-bound, bound, 1000)]
    cost_P = mean_cost(simulate(table, family(table, rhos)).count_PK, table.macs_K)
    assume((cost_P <= budget).any())
    found = cost_of(table, within_budget(table, budget))
    assert found >= cost_P[cost_P <= budget].max() - (last - first) / table.num_samples - 1e-9


@given(exit_tables(), st.floats(0, 1))
@settings(deadline=None, max_examples=300)
def test_the_best_member_seen_is_taken(table, position):
    """Where ties make the cost fall as ρ grows, the last crossing of the budget is not the best."""
    budget = table.macs_K[0] + position * (table.macs_K[-1] - table.macs_K[0])
    bound = math.log(2 * table.num_samples)
    rhos = [Fraction(math.exp(x)) for x in np.linspace(-bound, bound, 17)]
    cost_P = mean_cost(simulate(table, family(table, rhos)).count_PK, table.macs_K)
    found = cost_of(table, within_budget(table, budget))
    assert all(found >= cost for cost in cost_P if cost <= budget)


def test_the_largest_cost_of_two_exits():
    """With two exits the cost falls by one step a released sample: the answer is known."""
    table = distinct_table(0, 2, 20)
    (first, last), n = table.macs_K, 20
    for released in range(1, 20):
        cost = (released * first + (n - released) * last) / n
        for budget in (cost, cost + 0.4 * (last - first) / n):
            assert cost_of(table, within_budget(table, budget)) == pytest.approx(cost)


def test_the_ends_of_the_family_are_reached():
    table = distinct_table(1, 4, 15)
    first, last = table.macs_K[0], table.macs_K[-1]
    assert simulate(table, within_budget(table, first)[None]).count_PK.tolist() == [[15, 0, 0, 0]]
    assert simulate(table, within_budget(table, last)[None]).count_PK.tolist() == [[0, 0, 0, 15]]


def test_a_budget_below_the_first_exit_is_refused():
    table = distinct_table(1, 3, 15)
    with pytest.raises(BudgetError, match=f"the first exit already costs {table.macs_K[0]:,}"):
        within_budget(table, table.macs_K[0] * 0.99)
