"""Confidences against their definitions, written out in plain Python."""

import math

import pytest
import torch
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
    found = confidence(torch.tensor([row]), kind)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(by_definition(row, kind), abs=3e-6)


@pytest.mark.parametrize(
    ("kind", "uniform"), [("max-prob", 1 / 50), ("entropy", 0.0), ("margin", 0.0)]
)
def test_ends_of_the_scale(kind, uniform):
    certain = torch.zeros(50)
    certain[7] = 200
    found = confidence(torch.stack([torch.full((50,), 3.0), certain]), kind)
    torch.testing.assert_close(found, torch.tensor([uniform, 1.0]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_in_range_whatever_the_logits(kind):
    huge = torch.finfo(torch.float32).max
    logits = torch.tensor([[huge, -huge, 0.0], [huge, huge, huge], [1e-30, 0, 0], [60000, 1, -9]])
    found = confidence(logits, kind)
    assert ((found >= 0) & (found <= 1)).all()


def test_rounding_never_makes_an_entropy_negative():
    for classes in range(2, 300):
        assert confidence(torch.zeros(1, classes), "entropy") >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_logits_are_widened_first(kind):
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)).half()
    assert confidence(logits, kind).equal(confidence(logits.float(), kind))
