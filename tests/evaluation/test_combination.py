"""Combining exits: the weights of each kind, and the weighted sum against NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_tables import make_scores

from hdkd_cli.evaluation.combination import combined_chunks, fixed_combination
from hdkd_cli.evaluation.measures import combine

KINDS = ("single", "mean", "cost-weighted")


def test_weights():
    def weights(kind):
        return fixed_combination(kind, (1, 3, 4)).weights

    assert weights("single") == ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    assert weights("mean") == ((1, 0, 0), (0.5, 0.5, 0), (1 / 3, 1 / 3, 1 / 3))
    assert weights("cost-weighted") == ((1, 0, 0), (0.25, 0.75, 0), (1 / 8, 3 / 8, 4 / 8))


@pytest.mark.parametrize("kind", KINDS)
@given(temperature=st.floats(0.1, 10), exits=st.integers(1, 6), half=st.booleans())
@settings(deadline=None, max_examples=30)
def test_the_weighted_sum(kind, temperature, exits, half):
    scores = make_scores(exits=exits)
    logits = scores.logits_KNC.astype(np.float16) if half else scores.logits_KNC
    combination = fixed_combination(kind, scores.macs_K)
    weights_KK = np.array(combination.weights)
    expected = np.einsum("kj,jnc->knc", weights_KK, logits.astype(np.float64)) / temperature
    for k in range(exits):
        found = combine(logits[: k + 1], combination.weights[k], temperature)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[k], rtol=1e-4, atol=1e-5)


def test_single_is_the_exit_itself_to_the_last_bit():
    scores = make_scores()
    for k, weights in enumerate(fixed_combination("single", scores.macs_K).weights):
        assert np.array_equal(combine(scores.logits_KNC[: k + 1], weights), scores.logits_KNC[k])


def test_a_batch_that_shrinks_says_the_same():
    """Early exit combines a few samples at a time and must decide as evaluation does."""
    scores = make_scores()
    mean = fixed_combination("mean", scores.macs_K).weights[-1]
    whole = combine(scores.logits_KNC, mean, 1.3)
    stay = np.array([4, 9, 33])
    assert np.array_equal(combine(scores.logits_KNC[:, stay], mean, 1.3), whole[stay])


def test_the_logits_are_not_written_to():
    scores = make_scores()
    before = scores.logits_KNC.copy()
    for weights in fixed_combination("mean", scores.macs_K).weights:
        combine(scores.logits_KNC, weights, 0.5)
    assert np.array_equal(scores.logits_KNC, before)


def test_chunks_make_up_the_whole(monkeypatch):
    monkeypatch.setattr("hdkd_cli.evaluation.combination._CHUNK_ELEMENTS", 7 * 16)
    scores = make_scores(samples=60, classes=7)
    mean = fixed_combination("mean", scores.macs_K)
    parts = list(combined_chunks(scores, 2, mean, 2.0))
    assert [len(logits) for _, logits in parts] == [16, 16, 16, 12]
    whole = combine(scores.logits_KNC, mean.weights[2], 2.0)
    assert np.array_equal(np.concatenate([logits for _, logits in parts]), whole)
    covered = np.concatenate([np.arange(60)[samples] for samples, _ in parts])
    assert covered.tolist() == list(range(60))
