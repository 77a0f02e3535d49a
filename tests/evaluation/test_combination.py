"""Combining exits: the weights of each kind, and the weighted sum against NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from score_tables import make_scores

from hdkd_cli.evaluation.combination import combine, combined_chunks, fixed_combination

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
    logits = scores.logits_KNC.half() if half else scores.logits_KNC
    combination = fixed_combination(kind, scores.macs_K)
    weights_KK = np.array(combination.weights)
    expected = np.einsum("kj,jnc->knc", weights_KK, logits.double().numpy()) / temperature
    for k in range(exits):
        found = combine(list(logits[: k + 1]), combination, temperature)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), expected[k], rtol=1e-4, atol=1e-5)


def test_single_is_the_exit_itself_to_the_last_bit():
    scores = make_scores()
    single = fixed_combination("single", scores.macs_K)
    for k in range(3):
        assert combine(scores.logits_KNC[: k + 1], single).equal(scores.logits_KNC[k])


def test_a_batch_that_shrinks_says_the_same():
    """Early exit combines a few samples at a time and must decide as evaluation does."""
    scores = make_scores()
    mean = fixed_combination("mean", scores.macs_K)
    whole = combine(scores.logits_KNC, mean, 1.3)
    stay = torch.tensor([4, 9, 33])
    assert combine([z[stay] for z in scores.logits_KNC], mean, 1.3).equal(whole[stay])


def test_the_logits_are_not_written_to():
    scores = make_scores()
    before = scores.logits_KNC.clone()
    combine(scores.logits_KNC, fixed_combination("mean", scores.macs_K), 0.5)
    assert scores.logits_KNC.equal(before)


def test_chunks_make_up_the_whole(monkeypatch):
    monkeypatch.setattr("hdkd_cli.evaluation.combination._CHUNK_ELEMENTS", 7 * 16)
    scores = make_scores(samples=60, classes=7)
    mean = fixed_combination("mean", scores.macs_K)
    parts = list(combined_chunks(scores, 2, mean, 2.0))
    assert [len(logits) for _, logits in parts] == [16, 16, 16, 12]
    assert torch.cat([logits for _, logits in parts]).equal(combine(scores.logits_KNC, mean, 2.0))
    covered = torch.cat([torch.arange(60)[samples] for samples, _ in parts])
    assert covered.equal(torch.arange(60))
