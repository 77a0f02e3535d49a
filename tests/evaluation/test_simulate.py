"""Simulated exits against plain loops, and what must never decide about an exit."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_tables import exit_tables, make_scores

import hdkd_cli.evaluation
from hdkd_cli.evaluation.calibration import fit_policy
from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.evaluation.confidence import confidence
from hdkd_cli.evaluation.measures import combine
from hdkd_cli.evaluation.policies.geometric import PUBLISHED_RHOS, family
from hdkd_cli.evaluation.policy import OperatingPoint
from hdkd_cli.evaluation.simulate import (
    budget,
    choose_exits,
    mean_cost,
    simulate,
    threshold_array,
)
from hdkd_cli.evaluation.table import tabulate

EVALUATION = str(Path(hdkd_cli.evaluation.__file__).parent)


def first_sure_exit(confidences, thresholds):
    """The rule, for one sample."""
    for k, threshold in enumerate(thresholds):
        if confidences[k] >= threshold:
            return k
    return len(confidences) - 1


@st.composite
def tables_and_thresholds(draw):
    table = draw(exit_tables())
    levels = st.sampled_from([*np.unique(table.confidence_KN).tolist(), np.inf, 0.0, 1.0])
    row = st.tuples(*[levels] * (table.num_exits - 1))
    rows = draw(st.lists(row, min_size=1, max_size=4))
    return table, np.array(rows, np.float32).reshape(len(rows), table.num_exits - 1)


@given(tables_and_thresholds())
@settings(deadline=None)
def test_the_rule(drawn):
    table, thresholds_PK = drawn
    result = simulate(table, thresholds_PK)
    costs = mean_cost(result.count_PK, table.macs_K)
    for p, thresholds in enumerate(thresholds_PK.tolist()):
        exits = [
            first_sure_exit(table.confidence_KN[:, i].tolist(), thresholds)
            for i in range(table.num_samples)
        ]
        predictions = [int(table.prediction_KN[k, i]) for i, k in enumerate(exits)]
        right = [a == b for a, b in zip(predictions, table.labels_N.tolist(), strict=True)]
        assert result.exit_PN[p].tolist() == exits
        assert result.prediction_PN[p].tolist() == predictions
        assert result.count_PK[p].tolist() == [exits.count(k) for k in range(table.num_exits)]
        assert result.top1_pct_P[p] == pytest.approx(100 * sum(right) / len(right))
        assert costs[p] == pytest.approx(sum(table.macs_K[k] for k in exits) / len(exits))


def test_an_unused_exit_is_not_used_even_by_the_surest():
    confidence_KN = np.array([[1.0, 0.2], [0.5, 0.5], [0.1, 0.1]], np.float32)
    point = OperatingPoint(target_macs=None, thresholds=(None, 0.5), val_macs=1.0, val_top1_pct=0.0)
    assert choose_exits(confidence_KN, threshold_array([point])).tolist() == [[1, 1]]
    point = point.model_copy(update={"thresholds": (None, None)})
    assert choose_exits(confidence_KN, threshold_array([point])).tolist() == [[2, 2]]


def test_thresholds_compare_in_the_precision_of_confidences():
    """0.9 in a policy file lets float32 0.9 pass, as it does when the network runs in float32."""
    nearest = np.array([0.9], np.float32)
    assert nearest.astype(np.float64) < 0.9
    point = OperatingPoint(target_macs=None, thresholds=(0.9,), val_macs=1.0, val_top1_pct=0.0)
    confidence_KN = np.stack([nearest, nearest])
    assert choose_exits(confidence_KN, threshold_array([point])).tolist() == [[0]]


def geometric(scores, **changes):
    options = {
        "combination": "single",
        "confidence": "max-prob",
        "temperature": False,
        "budgets_macs": (),
    }
    return fit_policy("geometric", scores, **(options | changes))


@pytest.mark.parametrize("kind", ["max-prob", "entropy", "margin"])
@pytest.mark.parametrize("combination", ["single", "mean"])
def test_a_table_reads_scores_through_the_policy(kind, combination):
    scores, temperatures = make_scores(), (0.5, 1.0, 2.0)
    weights = fixed_combination(combination, scores.macs_K)
    table = tabulate(scores, weights, temperatures, kind)
    for k, temperature in enumerate(temperatures):
        logits = combine(scores.logits_KNC[: k + 1], weights.weights[k], temperature)
        assert table.confidence_KN[k].tolist() == confidence(logits, kind).tolist()
        assert table.prediction_KN[k].tolist() == logits.argmax(1).tolist()
    assert table.labels_N.tolist() == scores.labels_N.tolist()
    assert table.correct_KN.shape == (3, 60)


def test_record():
    scores = make_scores(samples=200)
    policy = geometric(scores, budgets_macs=[1500.0, 2500.0])
    record = budget(policy, make_scores(samples=90, seed=1), run="runs/x")
    written = record.as_record()
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert list(written) == ["schema", "run", "split", "policy", "samples", "points"]
    assert (written["schema"], record.run) == ("hdkd/budget/1", "runs/x")
    assert (record.split, record.policy, record.samples) == ("val", "geometric", 90)
    for point, fitted in zip(record.points, policy.points, strict=True):
        assert point.target_macs == fitted.target_macs
        assert point.thresholds == fitted.thresholds
        assert sum(point.exit_share) == pytest.approx(1)
        mean_exit = sum(share * (k + 1) for k, share in enumerate(point.exit_share))
        assert point.macs == pytest.approx(1000 * mean_exit)
        assert point.macs_eager == pytest.approx(1500 * mean_exit)
        assert point.ops == pytest.approx(1010 * mean_exit)


def test_on_its_own_split_a_record_repeats_the_policy():
    scores = make_scores()
    policy = geometric(scores)
    for point, fitted in zip(budget(policy, scores, run=None).points, policy.points, strict=True):
        assert (point.macs, point.top1_pct) == (fitted.val_macs, fitted.val_top1_pct)


def test_unknown_costs_are_null():
    scores = make_scores(macs_eager_K=None, ops_K=None)
    point = budget(geometric(scores), scores, run=None).points[0]
    assert (point.macs_eager, point.ops) == (None, None)


def test_costs_do_not_accumulate_over_calls():
    scores = make_scores()
    policy = geometric(scores)
    first = budget(policy, scores, run=None)
    assert budget(policy, scores, run=None) == first


def test_labels_never_decide_about_an_exit():
    """Neither where a sample leaves nor any threshold depends on what is true."""
    scores = make_scores(samples=100)
    wrong = make_scores(
        logits_KNC=scores.logits_KNC,
        labels_N=(scores.labels_N + np.random.default_rng(0).integers(1, 7, 100)) % 7,
    )
    policy, other = geometric(scores), geometric(wrong)
    assert [p.thresholds for p in policy.points] == [p.thresholds for p in other.points]
    shares, others = (
        [p.exit_share for p in budget(policy, s, run=None).points] for s in (scores, wrong)
    )
    assert shares == others


def lines_executed(function):
    """How many lines of the evaluation package ``function`` executes."""
    executed = 0

    def trace(frame, event, argument):
        nonlocal executed
        if not frame.f_code.co_filename.startswith(EVALUATION):
            return None
        executed += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return executed


def test_no_python_loop_runs_over_samples():
    def evaluate(num_samples):
        scores = make_scores(samples=num_samples)
        table = tabulate(scores, fixed_combination("single", scores.macs_K), (1.0,) * 3, "max-prob")
        return lines_executed(lambda: simulate(table, family(table, PUBLISHED_RHOS)))

    assert evaluate(50) == evaluate(2000) > 100
