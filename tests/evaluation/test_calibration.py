"""Calibration: what a policy says about itself, and what it must not be fitted on."""

import numpy as np
import pytest
from score_tables import FINGERPRINTS, make_scores

from hdkd_cli.errors import BudgetError, SettingsError
from hdkd_cli.evaluation.anytime import anytime
from hdkd_cli.evaluation.calibration import (
    calibrate_risk,
    fit_combination,
    fit_policy,
)
from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.evaluation.fitted import fitted_combination
from hdkd_cli.evaluation.policy import read_policy, write_policy
from hdkd_cli.evaluation.simulate import budget
from hdkd_cli.evaluation.table import tabulate
from hdkd_cli.evaluation.temperature import fit_temperatures


def calibrate(scores, by="geometric", **changes):
    options = {
        "combination": "single",
        "confidence": "max-prob",
        "temperature": False,
        "budgets_macs": (),
    }
    return fit_policy(by, scores, **(options | changes))


def guarantee(scores, calibration, **changes):
    options = {
        "combination": "mean",
        "confidence": "max-prob",
        "temperature": False,
        "guarantee": "ltt",
        "loss": "disagreement",
        "epsilon": 0.2,
        "delta": 0.1,
    }
    return calibrate_risk(scores, calibration, **(options | changes))


def test_without_budgets_the_published_points():
    policy = calibrate(make_scores(samples=200))
    assert len(policy.points) == 39
    assert {p.target_macs for p in policy.points} == {None}
    assert policy.points[0].val_macs < policy.points[-1].val_macs
    assert (policy.kind, policy.confidence) == ("geometric", "max-prob")
    assert policy.combination == fixed_combination("single", (1000, 2000, 3000))
    assert policy.temperatures == (1.0, 1.0, 1.0)


def test_with_budgets_one_point_each():
    policy = calibrate(make_scores(samples=200), budgets_macs=[2200.0, 1300.0])
    assert [p.target_macs for p in policy.points] == [2200.0, 1300.0]
    for point in policy.points:
        # a sample more or less at an exit moves the mean by 2000 / 200 at most
        assert point.target_macs - 10 <= point.val_macs <= point.target_macs


def test_what_it_was_fitted_on():
    policy = calibrate(make_scores(samples=77))
    assert policy.fitted_on.model_dump() == {
        "checkpoint_sha256": FINGERPRINTS["checkpoint_sha256"],
        "split": "val",
        "split_sha256": FINGERPRINTS["split_sha256"],
        "samples": 77,
        "classes": 7,
    }
    silent = calibrate(make_scores(meta={})).fitted_on
    assert (silent.checkpoint_sha256, silent.split, silent.split_sha256) == (None, None, None)


def test_temperatures_are_fitted_on_request():
    scores = make_scores(samples=200)
    policy = calibrate(scores, temperature=True, combination="mean")
    assert policy.temperatures == fit_temperatures(scores, policy.combination)
    assert policy.combination.kind == "mean"


@pytest.mark.parametrize("confidence", ["max-prob", "entropy", "margin"])
@pytest.mark.parametrize("temperature", [False, True])
def test_a_stored_policy_decides_as_the_fresh_one(tmp_path, confidence, temperature):
    policy = calibrate(make_scores(samples=200), confidence=confidence, temperature=temperature)
    write_policy(tmp_path / "p.json", policy)
    other = make_scores(samples=100, seed=1)
    stored = budget(read_policy(tmp_path / "p.json"), other, run=None)
    assert stored == budget(policy, other, run=None)


@pytest.mark.parametrize("split", ["val", "calibration", "reserve", "train"])
def test_any_other_split_will_do(split):
    assert calibrate(make_scores(meta=FINGERPRINTS | {"split": split})).fitted_on.split == split


def test_the_test_split_is_refused():
    with pytest.raises(SettingsError, match="for evaluation only"):
        calibrate(make_scores(meta=FINGERPRINTS | {"split": "test"}))


def test_an_impossible_budget_is_refused():
    with pytest.raises(BudgetError, match="1,000"):
        calibrate(make_scores(), budgets_macs=[2000.0, 999.0])


def test_one_exit_has_nothing_to_decide():
    scores = make_scores(exits=1)
    policy = calibrate(scores, budgets_macs=[1000.0])
    assert policy.points[0].thresholds == ()
    assert budget(policy, scores, run=None).points[0].exit_share == (1.0,)


def test_optimal_policies():
    scores = make_scores(samples=300)
    policy = calibrate(scores, "optimal", combination="mean")
    assert policy.kind == "optimal"
    assert {p.target_macs for p in policy.points} == {None}
    published = calibrate(scores, combination="mean")
    for point in published.points:
        assert policy.select(point.val_macs).val_top1_pct >= point.val_top1_pct
    budgets = [2200.0, 1300.0]
    policy = calibrate(scores, "optimal", budgets_macs=budgets)
    assert [p.target_macs for p in policy.points] == budgets
    for point, other in zip(
        policy.points, calibrate(scores, budgets_macs=budgets).points, strict=True
    ):
        assert point.val_macs <= point.target_macs
        assert point.val_top1_pct >= other.val_top1_pct


@pytest.mark.parametrize("by", ["geometric", "optimal"])
def test_fitted_combinations_bring_their_temperatures(by):
    scores = make_scores(samples=200)
    policy = calibrate(scores, by, combination="fitted")
    assert (policy.combination, policy.temperatures) == fitted_combination(scores)
    assert policy == calibrate(scores, by, combination="fitted", temperature=True)


def test_auroc_is_that_of_the_anytime_record():
    scores = make_scores(samples=200)
    policy = calibrate(scores, combination="mean", temperature=True)
    reading = fit_combination(scores, "mean", temperature=True)
    record = anytime(scores, *reading, ece_bins=15, run=None)
    assert policy.val_auroc == pytest.approx([row.auroc for row in record.exits], abs=1e-3)


def test_the_auroc_that_leaving_asks_for():
    """An answer is settled if it is right, or wrong at the last exit too: pairs, counted."""
    scores = make_scores(samples=60)
    policy = calibrate(scores, combination="mean", confidence="margin")
    table = tabulate(scores, policy.combination, policy.temperatures, "margin")
    for k in range(scores.num_exits - 1):
        settled, mended = [], []
        for i in range(60):
            loses = table.correct_KN[-1, i] and not table.correct_KN[k, i]
            (mended if loses else settled).append(table.confidence_KN[k, i])
        wins = [float(a > b) + (a == b) / 2 for a in settled for b in mended]
        assert policy.val_auroc_settled[k] == pytest.approx(np.mean(wins))
        assert policy.val_auroc_settled[k] != policy.val_auroc[k]
    assert policy.val_auroc_settled[-1] is None  # nothing is mended after the last exit


@pytest.mark.parametrize("kind", ["ltt", "crc"])
@pytest.mark.parametrize("loss", ["disagreement", "accuracy-gap"])
def test_risk_policies(kind, loss):
    val, calibration = make_scores(samples=400), make_scores(samples=300, seed=1)
    policy = guarantee(val, calibration, guarantee=kind, loss=loss)
    assert (policy.kind, len(policy.points)) == ("risk", 1)
    assert (policy.guarantee.kind, policy.guarantee.loss) == (kind, loss)
    assert (policy.guarantee.epsilon, policy.guarantee.n) == (0.2, 300)
    assert policy.guarantee.delta == (0.1 if kind == "ltt" else None)
    assert policy.fitted_on.samples == 400
    stricter = guarantee(val, calibration, guarantee=kind, loss=loss, epsilon=0.02)
    assert stricter.points[0].val_macs > policy.points[0].val_macs


def test_only_the_point_depends_on_the_calibration_samples():
    val = make_scores(samples=400)
    a, b = (guarantee(val, make_scores(samples=300, seed=seed)) for seed in (1, 2))
    same = {"combination", "temperatures", "confidence", "fitted_on", "val_auroc"}
    assert a.model_dump(include=same) == b.model_dump(include=same)
    assert a.points != b.points


@pytest.mark.parametrize("by", ["geometric", "optimal"])
def test_one_exit_under_every_policy(by):
    scores = make_scores(exits=1)
    assert calibrate(scores, by).points[0].thresholds == ()
    assert guarantee(scores, make_scores(exits=1, seed=1)).points[0].thresholds == ()
