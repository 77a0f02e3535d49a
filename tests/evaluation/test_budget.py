"""Budgets as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdkd_cli.errors import UsageError
from hdkd_cli.evaluation.budget import parse_budget


@pytest.mark.parametrize(
    ("text", "macs"),
    [
        ("1", 2_000_000),  # all of the network, not one operation
        ("1.0", 2_000_000),
        ("0.25", 500_000),
        (".5", 1_000_000),
        ("30M", 30e6),
        ("1.2G", 1.2e9),
        ("500k", 5e5),
        ("1M", 1e6),
        ("0.5M", 5e5),
        ("123456", 123_456),
        ("2", 2),
        (" 30M ", 30e6),
        ("30m", 30e6),
        ("500K", 5e5),
    ],
)
def test_what_it_stands_for(text, macs):
    assert parse_budget(text, 2_000_000) == pytest.approx(macs)


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "0.0", "0M", "-1", "-0.5", "1.5", "1e6", "0x10", "1,000", "1_000", "٣"),
        *("M", "30 Mio", "30T", "50%", "nan", "inf"),
    ],
)
def test_nonsense(text):
    with pytest.raises(UsageError, match="budget") as raised:
        parse_budget(text, 2_000_000)
    assert repr(text) in str(raised.value)


@given(st.integers(1, 1000), st.integers(10**5, 10**10))
def test_a_fraction_is_of_the_full_network(thousandths, full_macs):
    found = parse_budget(f"{thousandths / 1000}", full_macs)
    assert found == pytest.approx(thousandths * full_macs / 1000)
