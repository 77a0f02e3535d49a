"""A harmful loss is turned down. The experiment itself is benchmarks/harmful_term.py."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from harmful_term import HARMS, K, trained


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_harmful_loss_is_turned_down_whatever_the_seed_and_that_pays(harm):
    """Three seeds: its weight falls from 1 to below 0.3, and the network is better than with the
    weights that training starts from."""
    gains = []
    for seed in range(3):
        weights_ST, learned_loss = trained(seed, harm, learned=True)
        learned_T = weights_ST[-1]
        assert float(learned_T[-1]) < 0.3
        assert float(learned_T[:K].min()) > float(learned_T[-1])  # no exit's labels fall so far
        gains.append(trained(seed, harm, learned=False)[1] - learned_loss)
    assert sum(gains) / len(gains) > 0
    assert sum(gain > 0 for gain in gains) >= 2
