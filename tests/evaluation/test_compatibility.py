"""Scores and policies that do not belong together are refused; doubts are told."""

import pytest
from score_tables import FINGERPRINTS, make_scores

from hdkd_cli.errors import PolicyError, ScoresError, SettingsError
from hdkd_cli.evaluation.calibration import fit_policy
from hdkd_cli.evaluation.compatibility import (
    check_calibration,
    check_exits,
    check_policy,
    check_scores,
)

ON_TEST = FINGERPRINTS | {"split": "test", "split_sha256": "c" * 64}


def fitted(meta=FINGERPRINTS, exits=3):
    return fit_policy(
        "geometric",
        make_scores(exits=exits, meta=meta),
        combination="single",
        confidence="max-prob",
        temperature=False,
        budgets_macs=(),
    )


def test_scores_that_belong():
    assert check_scores(make_scores(), FINGERPRINTS) == []
    assert check_scores(make_scores(), {}) == []


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_scores_of_something_else_are_refused(name):
    """A cached score file must not outlive the weights, the split or the transform."""
    with pytest.raises(ScoresError, match=f"another {name}"):
        check_scores(make_scores(), FINGERPRINTS | {name: "d" * 64})


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_an_absent_fingerprint_is_told(name):
    meta = {key: value for key, value in FINGERPRINTS.items() if key != name}
    (warning,) = check_scores(make_scores(meta=meta), FINGERPRINTS)
    assert f"do not record {name}:" in warning


def test_hashes_are_shortened_and_texts_are_not():
    with pytest.raises(ScoresError, match=r"\(a{12}…, not d{12}…\)"):
        check_scores(make_scores(), {"checkpoint_sha256": "d" * 64})
    with pytest.raises(ScoresError, match=r"\(resize\(32\), not resize\(40\)\)"):
        check_scores(make_scores(), {"transform": "resize(40)"})


def test_a_policy_that_belongs():
    assert check_policy(fitted(), make_scores(meta=ON_TEST), allow_mismatch=False) == []


def test_a_policy_of_another_checkpoint():
    scores = make_scores(meta=ON_TEST | {"checkpoint_sha256": "e" * 64})
    with pytest.raises(PolicyError, match=r"checkpoint a{12}…, .* e{12}….*--allow-mismatch"):
        check_policy(fitted(), scores, allow_mismatch=False)
    (warning,) = check_policy(fitted(), scores, allow_mismatch=True)
    assert "fitted on checkpoint aaaaaaaaaaaa" in warning


@pytest.mark.parametrize("side", ["policy", "scores"])
def test_an_unknown_checkpoint_is_told(side):
    silent = {key: value for key, value in ON_TEST.items() if key != "checkpoint_sha256"}
    policy = fitted(silent | {"split": "val"} if side == "policy" else FINGERPRINTS)
    scores = make_scores(meta=silent if side == "scores" else FINGERPRINTS | {"split": "test"})
    warnings = check_policy(policy, scores, allow_mismatch=False)
    assert any(f"the {side} did not record a checkpoint" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("fitted_on", "evaluated_on", "same"),
    [
        ({"split": "val"}, {"split": "val"}, True),
        ({"split": "val"}, {"split": "test"}, False),
        ({"split": "val"}, {}, False),
        ({}, {}, False),
        ({"split": "val", "split_sha256": "1"}, {"split": "val", "split_sha256": "1"}, True),
        ({"split": "val", "split_sha256": "1"}, {"split": "val", "split_sha256": "2"}, False),
        ({"split": "val", "split_sha256": "1"}, {"split": "test", "split_sha256": "1"}, True),
        ({"split": "val", "split_sha256": "1"}, {"split": "val"}, True),
    ],
)
def test_evaluation_on_the_fitted_samples_is_told(fitted_on, evaluated_on, same):
    weights = {"checkpoint_sha256": "a" * 64}
    warnings = check_policy(
        fitted(weights | fitted_on), make_scores(meta=weights | evaluated_on), allow_mismatch=False
    )
    assert any("samples it was fitted on" in warning for warning in warnings) == same
    assert len(warnings) == same


def test_another_number_of_exits_is_refused_whatever_is_allowed():
    with pytest.raises(PolicyError, match="for 4 exits, there are 3"):
        check_policy(fitted(exits=4), make_scores(meta=ON_TEST), allow_mismatch=True)
    with pytest.raises(PolicyError, match="for 3 exits, there are 5"):
        check_exits(fitted(), 5)
    check_exits(fitted(), 3)


ASIDE = FINGERPRINTS | {"split": "calibration", "split_sha256": "c" * 64}


def test_samples_set_aside_may_bear_a_guarantee():
    assert check_calibration(make_scores(), make_scores(seed=1, meta=ASIDE)) == []
    assert (
        check_calibration(make_scores(), make_scores(seed=1, meta=ASIDE | {"split": "mine"})) == []
    )


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (ASIDE | {"split": "val"}, "these are val: .*data.calibration_fraction"),
        (ASIDE | {"split": "train"}, "these are train: .*data.calibration_fraction"),
        (ASIDE | {"split": "test"}, "test split"),
        (ASIDE | {"split_sha256": "b" * 64}, "data.calibration_fraction"),
    ],
)
def test_samples_that_were_used_may_not(meta, message):
    with pytest.raises(SettingsError, match=message):
        check_calibration(make_scores(), make_scores(seed=1, meta=meta))


def test_without_fingerprints_the_samples_themselves_are_compared():
    with pytest.raises(SettingsError, match="those of the thresholds"):
        check_calibration(make_scores(meta={}), make_scores(meta={}))
    (warning,) = check_calibration(make_scores(meta={}), make_scores(seed=1, meta={}))
    assert warning.startswith("calibration: the scores do not record")


def test_a_guarantee_is_about_one_network():
    other = make_scores(seed=1, meta=ASIDE | {"checkpoint_sha256": "f" * 64})
    with pytest.raises(ScoresError, match="another checkpoint_sha256"):
        check_calibration(make_scores(), other)
    for other_size in ({"exits": 4}, {"classes": 9}):
        with pytest.raises(ScoresError, match="another network"):
            check_calibration(make_scores(), make_scores(seed=1, meta=ASIDE, **other_size))


def test_another_number_of_classes_is_refused_whatever_is_allowed():
    policy = fitted(meta={})
    other = make_scores(classes=9, meta={})
    with pytest.raises(PolicyError, match="fitted on 7 classes, the scores have 9"):
        check_policy(policy, other, allow_mismatch=True)
