"""Shared parameters of the weights: what they move, what they leave, how far a round takes them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hdkd_cli.method.terms import Term, Terms
from hdkd_cli.method.tradeoffs import Tradeoffs, Tried, relative_loss

TERMS = Terms(4, "later", 3.0)
LABELS = [t for t, term in enumerate(TERMS.terms) if term.kind == "supervision"]
TAUGHT = [t for t, term in enumerate(TERMS.terms) if term.kind == "distillation"]
INITIAL_T = torch.tensor([1.0, 1.0, 1.0, 1.0] + [0.5] * 6)


def weights_at(*phi: float) -> torch.Tensor:
    tradeoffs = Tradeoffs(TERMS.terms)
    return INITIAL_T * tradeoffs.raw(torch.tensor(phi)).exp()


def test_parameters_are_those_that_the_terms_have():
    assert Tradeoffs(TERMS.terms).names == ("share of distillation", "reach")
    last = Terms(4, "last", 3.0)  # all distances differ by student alone: still a reach
    assert Tradeoffs(last.terms).names == ("share of distillation", "reach")
    two = Terms(2, "later", 3.0)  # a single pair has no distances to tell apart
    assert Tradeoffs(two.terms).names == ("share of distillation",)
    extra = (*TERMS.terms, Term("agree", "agreement"))
    assert "share of agreement" in Tradeoffs(extra).names


def test_labels_alone_have_nothing_to_trade_off():
    with pytest.raises(ValueError, match="all losses are on labels"):
        Tradeoffs(Terms(4, "none", 3.0).terms)


def test_weights_start_where_they_were():
    torch.testing.assert_close(weights_at(0.0, 0.0), INITIAL_T)


@given(*[st.floats(-2, 2)] * 2)
def test_the_labels_weights_stay(share, reach):
    assert torch.equal(weights_at(share, reach)[LABELS], INITIAL_T[LABELS])


def test_each_parameter_moves_what_it_is_called_after():
    shared = weights_at(math.log(2), 0.0)
    torch.testing.assert_close(shared[TAUGHT], 2 * INITIAL_T[TAUGHT])
    torch.testing.assert_close(shared[LABELS], INITIAL_T[LABELS])
    far = weights_at(0.0, 0.5)
    by_distance = {term.teacher - term.student: far[t] for t, term in enumerate(TERMS.terms)
                   if term.kind == "distillation"}  # fmt: skip
    assert by_distance[3] > by_distance[2] > by_distance[1]


def tried(up, down, here=0.0):
    return Tried(here, torch.tensor(up), torch.tensor(down))


LOSSES = st.lists(st.floats(-10, 10), min_size=2, max_size=2)


@given(LOSSES, LOSSES, st.floats(0.1, 1))
def test_a_round_moves_towards_the_better_side_and_no_further_than_it_tried(up, down, reach):
    tradeoffs = Tradeoffs(TERMS.terms)
    tradeoffs.move(tried(up, down), reach, noise=0.02)
    assert (tradeoffs.phi_M.abs() <= reach * (1 + 1e-6)).all()
    assert (tradeoffs.phi_M * (torch.tensor(up) - torch.tensor(down)) <= 0).all()
    assert int(tradeoffs.rounds) == 1


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=2), st.floats(0.5, 4), st.floats(-5, 5))
def test_a_round_finds_the_lowest_point_of_a_parabola(lowest, bend, offset):
    tradeoffs = Tradeoffs(TERMS.terms)
    lowest_M = torch.tensor(lowest)
    sides = [(bend * (side - lowest_M).square() + offset) for side in (1.0, -1.0)]
    for m in range(2):  # each parameter has its own parabola through the point it starts from
        here = float(bend * lowest_M[m] ** 2 + offset)
        tradeoffs.phi_M.zero_()
        tradeoffs.move(Tried(here, *sides), 1.0, noise=1e-9)
        assert float(tradeoffs.phi_M[m]) == pytest.approx(lowest[m], abs=1e-4)


def test_differences_like_noise_hardly_move():
    tradeoffs = Tradeoffs(TERMS.terms)
    tradeoffs.move(tried([0.001, -4.0], [-0.001, 4.0]), 0.5, noise=0.1)
    assert tradeoffs.phi_M.tolist() == pytest.approx([-0.005, 0.5], rel=1e-3)


def test_a_side_that_diverged_is_the_worse_one_and_of_two_neither():
    tradeoffs = Tradeoffs(TERMS.terms)
    tradeoffs.move(tried([math.inf, 1.0], [1.0, math.inf]), 0.5, noise=0.1)
    assert tradeoffs.phi_M.tolist() == [-0.5, 0.5]
    tradeoffs.move(tried([math.inf, 0.1], [math.inf, -0.1], here=math.inf), 0.5, noise=0.1)
    assert tradeoffs.phi_M.tolist() == [-0.5, 0.0]


def test_probes_move_one_parameter_each():
    tradeoffs = Tradeoffs(TERMS.terms)
    tradeoffs.move(tried([1.0, 0.0], [0.0, 0.0]), 0.5, 0.1)
    here_M, *moved = tradeoffs.probes(0.25)
    assert torch.equal(here_M, tradeoffs.phi_M)
    for m, (up_M, down_M) in enumerate(zip(moved[:2], moved[2:], strict=True)):
        expected = torch.zeros(2)
        expected[m] = 0.25
        torch.testing.assert_close(up_M - here_M, expected)
        torch.testing.assert_close(here_M - down_M, expected)


def test_every_exit_counts_by_its_relative_change():
    ce_K = torch.tensor([4.0, 1.0], requires_grad=True)
    relative_loss(ce_K).backward()
    torch.testing.assert_close(ce_K.grad * ce_K.detach(), torch.full((2,), 0.5))
