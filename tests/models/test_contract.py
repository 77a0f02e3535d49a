"""The parts of the contract that hold for every network."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_nets import chain_net

from hdkd_cli.models import Stage, narrow


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=8))
def test_narrow_keeps_the_samples_asked_for(index):
    state = {"a": torch.arange(6), "b": torch.randn(6, 2, 3)}
    narrowed = narrow(state, torch.tensor(index, dtype=torch.int64))
    assert narrowed["a"].tolist() == index
    assert narrowed["b"].tolist() == [state["b"][i].tolist() for i in index]
    assert state["a"].tolist() == list(range(6))


def test_narrow_takes_a_mask():
    narrowed = narrow({"a": torch.arange(4)}, torch.tensor([True, False, False, True]))
    assert narrowed["a"].tolist() == [0, 3]


def test_forward_runs_the_stages_in_turn():
    net = chain_net()
    x = torch.randn(2, 1, 1, 1).double()
    state, logits = net.start(x), []
    for stage in net.stages:
        state = stage.body(state)
        logits.append(stage.head(state))
    assert torch.equal(net(x), torch.stack(logits))
    assert net.num_exits == 3


def test_an_unfinished_stage_cannot_be_built():
    with pytest.raises(TypeError, match="abstract"):
        Stage()


def test_each_exit_owns_its_stage_unless_said_otherwise():
    net = chain_net()
    assert net.eager_ownership() == [[stage] for stage in net.stages]
    assert json.loads(net.architecture())["name"] == "chain"
