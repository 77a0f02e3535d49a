"""Reliability bins against a loop, and against the calibration error they explain."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdkd_cli.evaluation.anytime import expected_calibration_error
from hdkd_cli.evaluation.reliability import reliability

SAMPLES = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40)


@given(SAMPLES, st.integers(1, 20))
def test_every_sample_is_in_its_bin(samples: list[tuple[float, bool]], bins: int) -> None:
    confidence_N, correct_N = np.array([c for c, _ in samples]), np.array([a for _, a in samples])
    found = reliability(confidence_N, correct_N, bins)
    for m in range(bins):
        here = [
            (c, a)
            for c, a in samples
            if m < c * bins <= m + 1 or (m == 0 and c == 0)
        ]  # fmt: skip
        assert found.count_M[m] == len(here)
        if here:
            assert found.confidence_M[m] == pytest.approx(sum(c for c, _ in here) / len(here))
            assert found.accuracy_M[m] == pytest.approx(sum(a for _, a in here) / len(here))
        else:
            assert math.isnan(found.accuracy_M[m])


@given(SAMPLES, st.integers(1, 20))
def test_its_mean_gap_is_the_calibration_error(
    samples: list[tuple[float, bool]], bins: int
) -> None:
    confidence_N, correct_N = np.array([c for c, _ in samples]), np.array([a for _, a in samples])
    found = reliability(confidence_N, correct_N, bins)
    gap_M = np.nan_to_num(np.abs(found.accuracy_M - found.confidence_M))
    error = (found.count_M * gap_M).sum() / len(samples)
    assert error == pytest.approx(expected_calibration_error(confidence_N, correct_N, bins))
