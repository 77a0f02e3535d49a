"""Bootstrap intervals against exact answers."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdkd_cli.evaluation.bootstrap import paired_difference, unpaired_difference


def exact_interval(values: list[float]) -> tuple[float, float]:
    """2.5 % and 97.5 % quantiles of the mean over all N^N resamples."""
    means = sorted(np.mean(drawn) for drawn in itertools.product(values, repeat=len(values)))
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


@pytest.mark.parametrize("values", [[1, 0, 0, 1, 1], [1, -1, 0, 1, 1, 1], [0.3, 0.8, -0.4, 2.0]])
def test_interval_of_all_resamples(values: list[float]) -> None:
    found = paired_difference(values, [0.0] * len(values))
    low, high = exact_interval(values)
    assert found.value == pytest.approx(np.mean(values))
    # Means of few samples are coarse: a quantile is exact, or one step beside it.
    step = (max(values) - min(values)) / len(values)
    assert abs(found.low - low) < step
    assert abs(found.high - high) < step


@pytest.mark.parametrize("share", [0.1, 0.5, 0.83])
def test_width_is_that_of_the_binomial(share: float) -> None:
    samples = 5000
    right_N = np.arange(samples) < share * samples
    found = paired_difference(right_N, np.zeros(samples))
    deviation = math.sqrt(share * (1 - share) / samples)
    assert found.low == pytest.approx(share - 1.96 * deviation, abs=0.1 * deviation)
    assert found.high == pytest.approx(share + 1.96 * deviation, abs=0.1 * deviation)


def test_unpaired_variances_add() -> None:
    ours_N, theirs_M = np.arange(2000) < 1200, np.arange(500) < 200
    found = unpaired_difference(ours_N, theirs_M)
    deviation = math.sqrt(0.6 * 0.4 / 2000 + 0.4 * 0.6 / 500)
    assert found.value == pytest.approx(0.2)
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.05)
    assert not found.paired
    assert not found.within_noise


def test_pairing_takes_out_what_both_share() -> None:
    random = np.random.default_rng(0)
    theirs_N = random.random(1000) < 0.5
    ours_N = theirs_N.copy()
    ours_N[np.flatnonzero(~theirs_N)[:20]] = True  # twenty more, all else the same
    assert not paired_difference(ours_N, theirs_N).within_noise
    assert unpaired_difference(ours_N, theirs_N).within_noise


def test_the_same_twice_is_noise() -> None:
    right_N = np.arange(50) % 3 == 0
    found = paired_difference(right_N, right_N)
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert found.within_noise


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_sides_can_be_exchanged(pairs: list[tuple[bool, bool]]) -> None:
    ours_N, theirs_N = map(list, zip(*pairs, strict=True))
    found, back = paired_difference(ours_N, theirs_N), paired_difference(theirs_N, ours_N)
    assert found == paired_difference(ours_N, theirs_N)  # seeded
    assert found.value == pytest.approx(-back.value)
    assert -1 <= found.low <= found.high <= 1
