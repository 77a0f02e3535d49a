"""The fitted combination: valid rows, no better point on a grid, known answers, the ends."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_tables import make_scores

from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.evaluation.fitted import fitted_combination
from hdkd_cli.evaluation.temperature import MAX_TEMPERATURE, fit_temperatures


def loss(scores, u_J, mean_temperature):
    """The objective as documented, in NumPy: mean NLL and the pull of 100 samples."""
    z = np.einsum("j,jnc->nc", u_J, scores.logits_KNC[: len(u_J)].astype(np.float64))
    z = z / mean_temperature
    z -= z.max(axis=1, keepdims=True)
    label = z[np.arange(len(z)), scores.labels_N]
    nll = (np.log(np.exp(z).sum(axis=1)) - label).mean()
    return nll + 50 / len(z) * ((u_J - 1 / len(u_J)) ** 2).sum()


@given(seed=st.integers(0, 1000), samples=st.integers(30, 200))
@settings(deadline=None, max_examples=10)
def test_no_point_nearby_or_on_a_grid_is_better(seed, samples):
    scores = make_scores(exits=3, samples=samples, seed=seed)
    combination, temperatures = fitted_combination(scores)
    base = fit_temperatures(scores, fixed_combination("mean", scores.macs_K))
    for k in range(3):
        u_J = np.array(combination.weights[k][: k + 1]) * base[k] / temperatures[k]
        found = loss(scores, u_J, base[k])
        grid = itertools.product(np.linspace(0, 2, 9), repeat=k + 1)
        nearby = (
            np.clip(u_J + np.array(step), 0, None)
            for step in itertools.product((-0.01, 0, 0.01), repeat=k + 1)
        )
        for tried in (*map(np.array, grid), *nearby):
            assert found <= loss(scores, tried, base[k]) + 1e-6


@given(seed=st.integers(0, 1000), exits=st.integers(1, 5), samples=st.integers(1, 40))
@settings(deadline=None, max_examples=20)
def test_rows_are_averages(seed, exits, samples):
    scores = make_scores(exits=exits, samples=samples, seed=seed)
    combination, temperatures = fitted_combination(scores)
    assert combination.kind == "fitted"
    weights_KK = np.array(combination.weights)
    assert (weights_KK >= 0).all()
    np.testing.assert_allclose(weights_KK.sum(axis=1), 1)
    assert (np.triu(weights_KK, 1) == 0).all()
    assert len(temperatures) == exits
    assert min(temperatures) > 0
    assert fitted_combination(scores) == (combination, temperatures)


def test_exits_that_say_the_same_count_the_same():
    scores = make_scores(exits=3, samples=200)
    scores.logits_KNC[1:] = scores.logits_KNC[0]
    combination, temperatures = fitted_combination(scores)
    np.testing.assert_allclose(combination.weights[2], 1 / 3, atol=1e-3)
    assert temperatures == pytest.approx([temperatures[0]] * 3, rel=1e-3)


def test_an_exit_that_misleads_has_no_weight():
    scores = make_scores(exits=2, samples=3000)
    scores.logits_KNC[0] = -0.5 * np.eye(7)[scores.labels_N]
    combination, _ = fitted_combination(scores)
    assert combination.weights[1] == (0, 1)


def test_exits_that_know_nothing_are_averaged():
    scores = make_scores(exits=2, samples=3000)
    scores.logits_KNC[:] = -3 * np.eye(7)[scores.labels_N]
    combination, temperatures = fitted_combination(scores)
    assert combination.weights == ((1, 0), (0.5, 0.5))
    assert temperatures == (MAX_TEMPERATURE, MAX_TEMPERATURE)


def test_the_more_samples_the_less_pull():
    """Exit 2 is the better one; few samples keep its weight nearer to one half."""
    few, many = (fitted_combination(make_scores(exits=2, samples=n))[0] for n in (40, 4000))
    assert 0.5 < few.weights[1][1] < many.weights[1][1]
