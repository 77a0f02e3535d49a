"""The statistics of the signal against brute force over pairs of draws."""

import itertools

import numpy as np
import pytest

from hdkd_cli.study.signal import deviations, halves_cosine, sign_agreement, signal_to_noise

RNG = np.random.default_rng(0)
DRAWS_RT = RNG.normal([0.5, -0.2, 0.0, 1.0], 1.0, (7, 4))
KINDS = ["supervision", "supervision", "distillation", "distillation"]


def test_sign_agreement_is_that_of_all_pairs():
    pairs = itertools.permutations(range(len(DRAWS_RT)), 2)
    same = [np.sign(DRAWS_RT[i]) == np.sign(DRAWS_RT[j]) for i, j in pairs]
    assert sign_agreement(DRAWS_RT) == pytest.approx(np.mean(same))


def test_coins_agree_half_the_time_and_a_clear_sign_always():
    assert sign_agreement(RNG.normal(0, 1, (400, 50))) == pytest.approx(0.5, abs=0.01)
    assert sign_agreement(RNG.normal(9, 1, (40, 5))) == 1


def test_what_a_kind_has_in_common_is_no_deviation():
    shifted_RT = DRAWS_RT + np.array([3.0, 3.0, -5.0, -5.0])
    np.testing.assert_allclose(deviations(DRAWS_RT, KINDS), deviations(shifted_RT, KINDS))
    np.testing.assert_allclose(deviations(DRAWS_RT, KINDS)[:, :2].sum(1), 0, atol=1e-12)


def test_signal_to_noise_and_cosine_of_known_draws():
    draws_RT = np.array([[1.0, 4.0], [3.0, 8.0]])
    assert signal_to_noise(draws_RT) == pytest.approx((2 / 2**0.5 + 6 / 8**0.5) / 2)
    assert signal_to_noise(np.ones((3, 2))) is None
    assert halves_cosine(np.array([[1.0, 0.0], [1.0, 1.0]])) == pytest.approx(2**-0.5)
