"""Confusion counts against a loop."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hdkd_cli.evaluation.per_class import confusion


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_confusion_counts_pairs(pairs: list[tuple[int, int]]) -> None:
    expected = np.zeros((4, 4), np.int64)
    for label, prediction in pairs:
        expected[label, prediction] += 1
    labels_N, prediction_N = np.array(pairs, np.int64).reshape(-1, 2).T
    assert (confusion(labels_N, prediction_N, 4) == expected).all()
