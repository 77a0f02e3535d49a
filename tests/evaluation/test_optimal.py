"""Searched thresholds against brute force, and never worse than the geometric ones where fitted."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_tables import exit_tables

from hdkd_cli.errors import BudgetError
from hdkd_cli.evaluation.policies.geometric import PUBLISHED_RHOS, family, limits, within_budget
from hdkd_cli.evaluation.policies.optimal import (
    along,
    ascend,
    best_path,
    expected_correct,
    optimal_family,
    optimal_within,
)
from hdkd_cli.evaluation.simulate import mean_cost, simulate
from hdkd_cli.evaluation.table import ExitTable

small_tables = exit_tables(max_exits=3, max_samples=8)
positions = st.floats(0, 1)


def measured(table, thresholds_PK):
    result = simulate(table, np.asarray(thresholds_PK, np.float32))
    return mean_cost(result.count_PK, table.macs_K), result.top1_pct_P


def candidates(table):
    """Every threshold of every exit that makes a difference."""
    return [[*np.unique(row).tolist(), np.inf] for row in table.confidence_KN[:-1]]


def budget_at(table, position):
    return table.macs_K[0] + position * (table.macs_K[-1] - table.macs_K[0])


def objective(table, thresholds_PK, price):
    cost_P, top1_pct_P = measured(table, thresholds_PK)
    return top1_pct_P / 100 - price * cost_P


@given(small_tables, st.floats(0, 0.05), positions)
@settings(deadline=None, max_examples=60)
def test_no_single_threshold_can_be_improved(table, price, position):
    start_PK = within_budget(table, budget_at(table, position))[None]
    found_PK = ascend(table, table.correct_KN.astype(float), np.array([price]), start_PK)
    reached = objective(table, found_PK, price)[0]
    assert reached >= objective(table, start_PK, price)[0] - 1e-12
    for k, choices in enumerate(candidates(table)):
        for choice in choices:
            changed_PK = found_PK.copy()
            changed_PK[0, k] = choice
            assert objective(table, changed_PK, price)[0] <= reached + 1e-12


@given(exit_tables(max_exits=2, max_samples=12), st.floats(0, 0.05))
@settings(deadline=None, max_examples=40)
def test_two_exits_are_solved(table, price):
    found_PK = ascend(table, table.correct_KN.astype(float), np.array([price]), limits(table)[:1])
    everything = np.array(list(itertools.product(*candidates(table))))
    best = objective(table, everything.reshape(len(everything), -1), price).max()
    assert objective(table, found_PK, price)[0] == pytest.approx(best)


@given(exit_tables(), st.lists(positions, min_size=1, max_size=3))
@settings(deadline=None, max_examples=60)
def test_a_budget_is_kept_and_never_below_geometric(table, at):
    budgets = [budget_at(table, position) for position in at]
    cost_B, top1_pct_B = measured(table, optimal_within(table, budgets))
    published_cost_P, published_pct_P = measured(table, family(table, PUBLISHED_RHOS))
    for b, budget in enumerate(budgets):
        assert cost_B[b] <= budget
        assert top1_pct_B[b] >= measured(table, within_budget(table, budget)[None])[1][0]
        assert top1_pct_B[b] >= published_pct_P[published_cost_P <= budget].max(initial=0)


@given(exit_tables())
@settings(deadline=None, max_examples=60)
def test_the_family_rises_and_is_never_below_the_published_one(table):
    cost_P, top1_pct_P = measured(table, optimal_family(table))
    assert (np.diff(cost_P) > 0).all()
    assert (np.diff(top1_pct_P) > 0).all()
    assert cost_P[0] >= table.macs_K[0]
    for cost, top1_pct in zip(*measured(table, family(table, PUBLISHED_RHOS)), strict=True):
        assert top1_pct_P[cost_P <= cost].max() >= top1_pct


@given(exit_tables(), st.lists(positions, min_size=1, max_size=5))
@settings(deadline=None, max_examples=60)
def test_the_path_spends_budgets_without_exceeding_them(table, at):
    path_PK = best_path(table, family(table, PUBLISHED_RHOS))
    path_cost_P, _ = measured(table, path_PK)
    assert path_cost_P[0] == table.macs_K[0]
    assert (np.diff(path_cost_P) > 0).all()
    budgets_B = np.array([budget_at(table, position) for position in at])
    cost_B, _ = measured(table, along(table, path_PK, budgets_B))
    assert (cost_B <= budgets_B).all()
    for budget, cost in zip(budgets_B, cost_B, strict=True):
        assert cost >= path_cost_P[path_cost_P <= budget].max() - 1e-9


def useless_middle(num_samples=400):
    """Half the samples are easy and known to be; exit 2 is always wrong, exit 3 always right."""
    random = np.random.default_rng(0)
    easy_N = np.arange(num_samples) % 2 == 0
    first_N = np.where(easy_N, 0.8, 0.2) + 0.1 * random.random(num_samples)
    confidence_KN = np.stack([first_N, random.random(num_samples), np.ones(num_samples)])
    right_KN = np.stack([easy_N, np.zeros(num_samples, bool), np.ones(num_samples, bool)])
    return ExitTable(
        confidence_KN.astype(np.float32),
        right_KN.astype(np.int64),
        np.ones(num_samples, np.int64),
        (10, 20, 30),
    )


def test_an_exit_that_is_never_right_is_not_used():
    """The geometric family must send samples there; leaving half at exit 1 is right throughout."""
    table = useless_middle()
    geometric_PK = within_budget(table, 20)[None]
    found_PK = optimal_within(table, [20])
    assert measured(table, geometric_PK)[1][0] < 80
    assert measured(table, found_PK)[1][0] == 100
    assert simulate(table, found_PK).count_PK.tolist() == [[200, 0, 200]]


def test_a_budget_below_the_first_exit_is_refused():
    with pytest.raises(BudgetError, match="the first exit already costs 10"):
        optimal_within(useless_middle(), [20, 9.9])


def noisy(seed, num_samples):
    """Answers drawn from known probabilities: the log-odds of the confidences, exit by exit."""
    random = np.random.default_rng(seed)
    hard_N = random.normal(size=num_samples)
    odds_KN = 1.5 * np.arange(4)[:, None] / 3 - hard_N + random.normal(size=(4, num_samples))
    truth_KN = 1 / (1 + np.exp(-odds_KN))
    right_KN = random.random((4, num_samples)) < truth_KN
    ones_N = np.ones(num_samples, np.int64)
    return ExitTable(
        truth_KN.astype(np.float32), right_KN.astype(np.int64), ones_N, (10, 20, 30, 40)
    ), truth_KN


def test_expected_correctness_is_that_of_the_model():
    table, truth_KN = noisy(0, 20_000)
    found_KN = expected_correct(table)
    assert np.abs(found_KN - truth_KN).mean() < 0.01
    np.testing.assert_allclose(found_KN.mean(1), table.correct_KN.mean(1), atol=1e-3)


def test_an_exit_that_is_always_right_has_an_expectation():
    table = useless_middle()
    found_KN = expected_correct(table)
    assert (found_KN[1] < 0.05).all()
    assert (found_KN[2] > 0.95).all()


def test_smooth_estimates_generalise_where_answers_do_not():
    """Fitted to the answers of 400 samples, the search wins more there and less on new ones."""
    new, _ = noisy(100, 50_000)
    price_M = np.geomspace(0.002, 0.02, 8)
    gains = []
    for seed in range(10):
        table, _ = noisy(seed, 400)
        start_PK = np.repeat(family(table, PUBLISHED_RHOS[15:16]), len(price_M), axis=0)
        smooth_PK = ascend(table, expected_correct(table), price_M, start_PK)
        exact_PK = ascend(table, table.correct_KN.astype(float), price_M, start_PK)
        gains.append(
            [(objective(t, smooth_PK, price_M) - objective(t, exact_PK, price_M)).mean()
             for t in (table, new)]
        )  # fmt: skip
    on_old, on_new = np.mean(gains, axis=0)
    assert on_old < 0 < on_new
