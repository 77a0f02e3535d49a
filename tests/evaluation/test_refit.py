"""A policy for a network that answers a little differently: found as before, on its own scores."""

import dataclasses

import numpy as np
import pytest
from score_tables import FINGERPRINTS, make_scores

from hdkd_cli.errors import SettingsError
from hdkd_cli.evaluation.calibration import calibrate_risk, fit_policy
from hdkd_cli.evaluation.refit import refit

OTHER = FINGERPRINTS | {"checkpoint_sha256": "c" * 64}


def none_is_needed():
    pytest.fail("a guarantee alone needs calibration samples")


def a_little_different(scores, meta=OTHER):
    noise = np.random.default_rng(9).standard_normal(scores.logits_KNC.shape, np.float32)
    return dataclasses.replace(
        scores, logits_KNC=scores.logits_KNC + np.float32(0.3) * noise, meta=meta
    )


@pytest.mark.parametrize(
    ("kind", "combination", "confidence", "temperature"),
    [
        ("geometric", "single", "max-prob", False),
        ("optimal", "cost-weighted", "margin", True),
        ("optimal", "fitted", "entropy", False),
    ],
)
def test_the_same_method_and_budget(kind, combination, confidence, temperature):
    how = {"combination": combination, "confidence": confidence, "temperature": temperature}
    before = make_scores(samples=300)
    policy = fit_policy(kind, before, budgets_macs=[1700.0], **how)
    after = a_little_different(before)
    again = refit(policy, after, none_is_needed, pytest.fail)
    assert again == fit_policy(kind, after, budgets_macs=[1700.0], **how)
    assert again.points[0].val_macs <= 1700
    assert again.points[0].thresholds != policy.points[0].thresholds
    assert again.fitted_on.checkpoint_sha256 == "c" * 64


def test_without_a_budget_it_may_cost_what_it_cost():
    before = make_scores(samples=300)
    family = fit_policy(
        "optimal", before, combination="single", confidence="margin", temperature=False,
        budgets_macs=(),
    )  # fmt: skip
    chosen = family.only(family.points[len(family.points) // 2])
    (point,) = refit(chosen, a_little_different(before), none_is_needed, pytest.fail).points
    assert point.target_macs is None
    assert 0.9 * chosen.points[0].val_macs < point.val_macs <= chosen.points[0].val_macs


@pytest.mark.parametrize(("kind", "delta"), [("ltt", 0.1), ("crc", None)])
def test_a_promise_is_made_again(kind, delta):
    val = make_scores(samples=300)
    held_out = make_scores(
        samples=400, seed=1, meta=FINGERPRINTS | {"split": "calibration", "split_sha256": "d" * 64}
    )
    how = {
        "combination": "mean", "confidence": "max-prob", "temperature": False, "guarantee": kind,
        "loss": "disagreement", "epsilon": 0.2, "delta": delta or 0.1,
    }  # fmt: skip
    policy = calibrate_risk(val, held_out, **how)
    own, own_held_out = (
        a_little_different(s, OTHER | {n: s.meta[n] for n in ("split", "split_sha256")})
        for s in (val, held_out)
    )
    again = refit(policy, own, lambda: own_held_out, pytest.fail)
    assert again == calibrate_risk(own, own_held_out, **how)
    assert again.guarantee == policy.guarantee
    with pytest.raises(SettingsError, match="trained nothing"):
        refit(policy, own, lambda: own, pytest.fail)
