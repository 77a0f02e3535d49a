"""Confidences against their definitions, written out in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdkd_cli.evaluation.confidence import confidence

KINDS = ("max-prob", "entropy", "margin")
ROWS = st.lists(st.floats(-15, 15, width=32), min_size=2, max_size=8)


def by_definition(row, kind):
    total = sum(math.exp(z) for z in row)
    p = sorted((math.exp(z) / total for z in row), reverse=True)
    return {
        "max-prob": p[0],
        "entropy": 1 + sum(x * math.log(x) for x in p) / math.log(len(p)),
        "margin": p[0] - p[1],
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
@given(row=ROWS)
@settings(deadline=None)
def test_definition(kind, row):
    found = confidence(np.array([row], np.float32), kind)
    assert found.dtype == np.float32
    assert found.item() == pytest.approx(by_definition(row, kind), abs=3e-7)


@pytest.mark.parametrize(
    ("kind", "uniform"), [("max-prob", 1 / 50), ("entropy", 0.0), ("margin", 0.0)]
)
def test_ends_of_the_scale(kind, uniform):
    certain = np.zeros(50, np.float32)
    certain[7] = 200
    found = confidence(np.stack([np.full(50, 3, np.float32), certain]), kind)
    np.testing.assert_allclose(found, [uniform, 1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_in_range_whatever_the_logits(kind):
    huge = np.finfo(np.float32).max
    logits = [[huge, -huge, 0.0], [huge, huge, huge], [1e-30, 0, 0], [60000, 1, -9]]
    found = confidence(np.array(logits, np.float32), kind)
    assert ((found >= 0) & (found <= 1)).all()


def test_rounding_never_makes_an_entropy_negative():
    for classes in range(2, 300):
        assert confidence(np.zeros((1, classes), np.float32), "entropy") >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_logits_are_widened_first(kind):
    logits = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float16)
    assert np.array_equal(confidence(logits, kind), confidence(logits.astype(np.float32), kind))
