"""Temperatures against a brute-force grid, known answers, and the ends of the range."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_tables import make_scores

from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.evaluation.measures import combine
from hdkd_cli.evaluation.temperature import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    fit_temperature,
    fit_temperatures,
)

GRID = np.geomspace(MIN_TEMPERATURE, MAX_TEMPERATURE, 1001)  # steps of 0.9 %


def nll(logits, labels, temperature):
    z = logits.astype(np.float64) / temperature
    z = z - z.max(axis=1, keepdims=True)
    return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]).mean())


def fit(logits, labels):
    return fit_temperature([(slice(0, len(labels)), logits)], labels)


@given(seed=st.integers(0, 2**31), spread=st.floats(0.3, 10), samples=st.integers(5, 40))
@settings(deadline=None, max_examples=15)
def test_no_point_of_a_grid_is_better(seed, spread, samples):
    random = np.random.default_rng(seed)
    logits = (spread * random.standard_normal((samples, 4))).astype(np.float32)
    guesses = random.integers(0, 4, samples)
    labels = np.where(random.random(samples) < 0.7, logits.argmax(1), guesses)
    found = fit(logits, labels)
    best = min(GRID, key=lambda t: nll(logits, labels, t))
    assert nll(logits, labels, found) <= nll(logits, labels, best) + 1e-9


def test_to_the_resolution_of_a_fine_grid():
    scores = make_scores(samples=200)
    logits, labels = scores.logits_KNC[0], scores.labels_N
    coarse = min(GRID, key=lambda t: nll(logits, labels, t))
    fine = np.geomspace(coarse / 1.01, coarse * 1.01, 1001)  # steps of 0.002 %
    best = min(fine, key=lambda t: nll(logits, labels, t))
    assert fit(logits, labels) == pytest.approx(best, rel=3e-5)


def test_a_closed_form():
    """Two classes, logit ±1, three of four right: σ(2/τ) = 3/4, so τ = 2 / log 3."""
    logits = np.array([[1.0, -1.0]] * 4, np.float32)
    assert fit(logits, np.array([0, 0, 0, 1])) == pytest.approx(2 / np.log(3), rel=1e-6)


@pytest.mark.parametrize("factor", [0.1, 3.0, 20.0])
def test_scaled_logits_have_a_scaled_temperature(factor):
    scores = make_scores()
    once = fit(scores.logits_KNC[0], scores.labels_N)
    assert fit(np.float32(factor) * scores.logits_KNC[0], scores.labels_N) == pytest.approx(
        factor * once, rel=1e-5
    )


def test_the_range_ends_what_has_no_optimum():
    logits = np.array([[5.0, 0.0], [0.0, 5.0]], np.float32)
    assert fit(logits, np.array([0, 1])) == MIN_TEMPERATURE
    assert fit(logits, np.array([1, 0])) == MAX_TEMPERATURE
    assert (
        MIN_TEMPERATURE <= fit(np.ones((3, 4), np.float32), np.array([0, 1, 2])) <= MAX_TEMPERATURE
    )


def test_every_exit_is_fitted_on_its_combined_logits():
    scores = make_scores(samples=300)
    mean = fixed_combination("mean", scores.macs_K)
    found = fit_temperatures(scores, mean)
    for k, temperature in enumerate(found):
        combined = combine(scores.logits_KNC[: k + 1], mean.weights[k])
        assert temperature == fit(combined, scores.labels_N)
    assert len(set(found)) == 3
