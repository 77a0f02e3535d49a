"""Anytime metrics against plain loops."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_tables import make_scores

from hdkd_cli.evaluation.anytime import (
    anytime,
    auroc,
    expected_calibration_error,
    most_often_taken_for,
    per_class,
)
from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.evaluation.measures import combine
from hdkd_cli.evaluation.scores import MAX_LOGIT


def record_of(scores, kind="single", temperatures=None, bins=15):
    return anytime(
        scores,
        fixed_combination(kind, scores.macs_K),
        temperatures or (1.0,) * scores.num_exits,
        ece_bins=bins,
        run="runs/x",
    )


def by_loops(logits, labels, bins):
    """Metrics of one exit, sample by sample."""
    right, right5, nll = 0, 0, 0.0
    members = [[] for _ in range(bins)]
    for row, label in zip(logits.astype(np.float64).tolist(), labels.tolist(), strict=True):
        ranked = sorted(range(len(row)), key=lambda c: (-row[c], c))
        right += ranked[0] == label
        right5 += label in ranked[: min(5, len(row))]
        top = max(row)
        total = sum(math.exp(z - top) for z in row)
        nll -= row[label] - top - math.log(total)
        for b in range(bins):
            if b / bins < 1 / total <= (b + 1) / bins:
                members[b].append((1 / total, ranked[0] == label))
    n = len(labels)
    ece = sum(abs(sum(c for c, _ in m) - sum(a for _, a in m)) for m in members) / n
    return 100 * right / n, 100 * right5 / n, nll / n, 100 * ece


@pytest.mark.parametrize("classes", [3, 5, 12])
@pytest.mark.parametrize(
    ("kind", "temperatures"), [("single", (1.0, 1.0, 1.0)), ("mean", (0.7, 1.0, 2.5))]
)
def test_metrics(classes, kind, temperatures):
    scores = make_scores(samples=80, classes=classes)
    combination = fixed_combination(kind, scores.macs_K)
    record = record_of(scores, kind, temperatures, bins=10)
    for k, row in enumerate(record.exits):
        logits = combine(scores.logits_KNC[: k + 1], combination.weights[k], temperatures[k])
        found = [getattr(row, name) for name in ("top1_pct", "top5_pct", "nll", "ece_pct")]
        assert found == pytest.approx(by_loops(logits, scores.labels_N, 10), abs=1e-4)


def test_chunks_do_not_matter(monkeypatch):
    scores = make_scores()
    whole = record_of(scores)
    monkeypatch.setattr("hdkd_cli.evaluation.combination._CHUNK_ELEMENTS", 50)
    for row, expected in zip(record_of(scores).exits, whole.exits, strict=True):
        assert row == pytest.approx(expected)


def test_shape():
    record = record_of(make_scores())
    written = record.as_record()
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert list(written) == ["schema", "run", "split", "combination", "samples", "exits"]
    assert (record.schema_id, record.run) == ("hdkd/anytime/1", "runs/x")
    assert (record.split, record.samples) == ("val", 60)
    assert [row.exit for row in record.exits] == [1, 2, 3]
    assert [row.macs for row in record.exits] == [1000, 2000, 3000]
    assert [row.macs_eager for row in record.exits] == [1500, 3000, 4500]
    assert [row.ops for row in record.exits] == [1010, 2020, 3030]
    assert [row.params for row in record.exits] == [10, 20, 30]


def test_what_is_unknown_is_null():
    record = record_of(make_scores(macs_eager_K=None, ops_K=None, params_K=None, meta={}))
    assert record.split is None
    for row in record.exits:
        assert (row.macs_eager, row.ops, row.params) == (None, None, None)


def test_equal_logits_are_predicted_as_argmax_does():
    """A network that says nothing is right about class 0 and, in five guesses, about 0..4."""
    scores = make_scores(logits_KNC=np.zeros((3, 60, 7), np.float32))
    row = record_of(scores).exits[0]
    assert row.top1_pct == pytest.approx(100 * float((scores.labels_N == 0).mean()))
    assert row.top5_pct == pytest.approx(100 * float((scores.labels_N < 5).mean()))
    assert row.nll == pytest.approx(math.log(7))


def test_the_largest_logits_there_can_be():
    huge = MAX_LOGIT
    scores = make_scores(
        logits_KNC=np.array([[[huge, -huge]]], np.float32),
        labels_N=np.array([1]),
        macs_K=(1,),
        macs_eager_K=None,
        ops_K=None,
        params_K=None,
    )
    row = record_of(scores).exits[0]
    assert row.nll == pytest.approx(2 * huge)
    assert row.auroc is None  # nothing is right, so nothing can be told apart


def test_calibration_error_of_known_tables():
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    correct = np.array([True, True, True, False])
    assert expected_calibration_error(confidence, correct, 10) == pytest.approx(0.05)
    assert expected_calibration_error(confidence, correct, 1) == pytest.approx(0.0)
    # a confidence of exactly 0.5 belongs to the lower of two bins
    edge = np.array([0.5, 0.75])
    assert expected_calibration_error(edge, np.array([True, False]), 2) == pytest.approx(0.625)


@given(levels=st.lists(st.integers(0, 6), min_size=2, max_size=30), seed=st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_auroc_counts_pairs(levels, seed):
    confidence = np.array(levels) / 6
    correct = np.random.default_rng(seed).random(len(levels)) < 0.5
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a in confidence[correct]
        for b in confidence[~correct]
    ]
    expected = sum(pairs) / len(pairs) if pairs else None
    assert auroc(confidence, correct) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["single", "mean"])
def test_each_class_by_itself(kind):
    scores = make_scores(samples=80, classes=5)
    reading = fixed_combination(kind, scores.macs_K), (1.0, 2.0, 0.5)
    accuracies, confusion = per_class(scores, *reading, "abcde")
    said = [
        combine(scores.logits_KNC[: k + 1], reading[0].weights[k], reading[1][k]).argmax(1)
        for k in range(3)
    ]
    for c, one in enumerate(accuracies):
        members = [i for i, label in enumerate(scores.labels_N.tolist()) if label == c]
        assert (one.label, one.class_name, one.samples) == (c, "abcde"[c], len(members))
        for k, top1_pct in enumerate(one.top1_pct):
            right = sum(int(said[k][i]) == c for i in members)
            assert top1_pct == pytest.approx(100 * right / len(members))
        for other in range(5):
            assert confusion[c][other] == sum(int(said[-1][i]) == other for i in members)


def test_a_class_without_images_has_no_accuracy():
    scores = make_scores(samples=30, classes=4)
    np.minimum(scores.labels_N, 2, out=scores.labels_N)
    accuracies, confusion = per_class(scores, fixed_combination("single", scores.macs_K), (1,) * 3)
    assert accuracies[3].class_name == "3"
    assert (accuracies[3].samples, accuracies[3].top1_pct) == (0, (None,) * 3)
    assert confusion[3] == (0, 0, 0, 0)
    assert sum(map(sum, confusion)) == 30


def test_the_most_frequent_mistake_of_a_class():
    assert most_often_taken_for(1, [3, 9, 4]) == (2, 4)
    assert most_often_taken_for(2, [3, 3, 9]) == (0, 3)
    assert most_often_taken_for(0, [5, 0, 0])[1] == 0
