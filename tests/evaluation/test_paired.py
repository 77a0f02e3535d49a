"""Differences over seeds, against scipy.stats, closed forms and simulated coverage."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hdkd_cli.evaluation.paired import holm, over_seeds, over_settings

FIRST = [71.2, 70.4, 72.1, 71.0, 70.9]
OTHER = [72.0, 71.9, 72.3, 72.4, 71.5]


def test_t_interval_and_p_value_are_those_of_scipy() -> None:
    found = over_seeds(FIRST, OTHER)
    difference = np.subtract(OTHER, FIRST)
    low, high = stats.t.interval(
        0.95, len(difference) - 1, difference.mean(), stats.sem(difference)
    )
    assert (found.t_low, found.t_high) == pytest.approx((low, high))
    assert found.p == pytest.approx(stats.ttest_rel(OTHER, FIRST).pvalue)
    assert found.value == pytest.approx(difference.mean())
    assert found.deviation == pytest.approx(np.std(difference, ddof=1))
    assert found.per_seed == pytest.approx(tuple(difference))


def test_two_seeds_by_hand() -> None:
    """With one degree of freedom t is Cauchy: its 97.5 % quantile is tan(0.475 π)."""
    found = over_seeds([0.0, 0.0], [1.0, 2.0])
    half = math.tan(0.475 * math.pi) * math.sqrt(0.5) / math.sqrt(2)
    assert (found.t_low, found.t_high) == pytest.approx((1.5 - half, 1.5 + half))


def test_bootstrap_interval_is_that_of_all_resamples() -> None:
    difference = np.subtract(OTHER, FIRST)
    means = [np.mean(drawn) for drawn in itertools.product(difference, repeat=len(difference))]
    low, high = np.quantile(means, [0.025, 0.975])
    found = over_seeds(FIRST, OTHER)
    assert found.bootstrap_low == pytest.approx(low, abs=0.05)
    assert found.bootstrap_high == pytest.approx(high, abs=0.05)


def test_pairing_takes_out_what_a_seed_does_to_both() -> None:
    hard_and_easy = np.array([0.0, 10, 20, 30])
    found = over_seeds(hard_and_easy, hard_and_easy + np.array([1.0, 1.1, 0.9, 1.0]))
    assert found.t_low > 0.8
    assert found.t_high < 1.2


@pytest.mark.parametrize("step", [0.0, 0.1])
def test_equal_differences_show_no_spread_to_measure_against(step: float) -> None:
    found = over_seeds([1.0, 2.0, 3.0], [1.0 + step, 2.0 + step, 3.0 + step])
    assert found.value == pytest.approx(step)
    assert (found.t_low, found.t_high, found.p) == (None, None, None)


def test_t_interval_covers_as_often_as_it_says() -> None:
    difference_RS = np.random.default_rng(0).normal(0.3, 1.0, (400, 3))
    found = [over_seeds(np.zeros(3), difference_S) for difference_S in difference_RS]
    # 95 % of 400, give or take three standard deviations of the binomial
    assert np.mean([one.t_low <= 0.3 <= one.t_high for one in found]) == pytest.approx(
        0.95, abs=3 * math.sqrt(0.95 * 0.05 / 400)
    )


def test_one_setting_is_that_of_its_seeds() -> None:
    one, alone = over_settings([np.subtract(OTHER, FIRST)]), over_seeds(FIRST, OTHER)
    assert (one.value, one.t_low, one.t_high, one.p) == pytest.approx(
        (alone.value, alone.t_low, alone.t_high, alone.p)
    )
    assert over_settings([[0.5, 0.5], [1.0, 1.0]]).t_low is None


def test_interval_over_settings_covers_as_often_as_it_says_with_unlike_spreads() -> None:
    random, covered, draws = np.random.default_rng(0), 0, 2000
    for _ in range(draws):
        found = over_settings(
            [random.normal(1.0, 3.0, 5), random.normal(0.0, 0.5, 4), random.normal(-0.4, 1.0, 5)]
        )
        covered += found.t_low <= 0.2 <= found.t_high  # 0.2 is the mean of the true means
    assert 0.935 <= covered / draws <= 0.98  # Satterthwaite errs on the wide side


def test_holm_by_hand() -> None:
    # sorted 0.005 0.01 0.03 0.04 times 4 3 2 1 → 0.02 0.03 0.06 0.04, which must not fall
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_helps_and_never_does_worse_than_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= np.minimum(1, len(p) * np.array(p))).all()
    for (a, x), (b, y) in itertools.product(zip(p, adjusted, strict=True), repeat=2):
        assert a > b or x <= y  # the order stays


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms())
def test_holm_does_not_look_at_the_order(p: list[float], random: object) -> None:
    shuffled = list(range(len(p)))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert holm([p[i] for i in shuffled]) == pytest.approx(holm(p)[shuffled])
