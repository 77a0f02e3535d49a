"""The published budget family on the scores of a real 5-exit network: every number at every point.

data/expected.json was computed by another program; data/oracle.safetensors holds the confidences
and predictions of the same scores (derived by build_oracle.py). With HDKD_ORACLE_DIR set to the
folder of the full score files, the way from logits to the record is checked as well.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from hdkd_cli.evaluation.anytime import anytime
from hdkd_cli.evaluation.calibration import fit_policy
from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.evaluation.policies.geometric import PUBLISHED_RHOS, family, within_budget
from hdkd_cli.evaluation.policies.optimal import optimal_within
from hdkd_cli.evaluation.policies.risk import last_safe, losses, promise, safe_to_fast
from hdkd_cli.evaluation.scores import read_scores
from hdkd_cli.evaluation.simulate import budget, mean_cost, simulate
from hdkd_cli.evaluation.table import ExitTable

DATA = Path(__file__).parent / "data"
FULL = os.environ.get("HDKD_ORACLE_DIR")
needs_full_files = pytest.mark.skipif(
    FULL is None, reason="HDKD_ORACLE_DIR is not set: from logits to the record is not checked"
)


@pytest.fixture(scope="module")
def expected():
    return json.loads((DATA / "expected.json").read_text())


@pytest.fixture(scope="module")
def tables():
    stored = load_file(DATA / "oracle.safetensors")
    return {
        split: ExitTable(
            confidence_KN=stored[f"{split}.confidence"],
            prediction_KN=stored[f"{split}.prediction"].astype(np.int64),
            labels_N=stored[f"{split}.labels"].astype(np.int64),
            macs_K=tuple(stored["macs"].tolist()),
        )
        for split in ("val", "test")
    }


def test_the_points_are_the_published_ones(expected):
    assert [row["rho"] for row in expected] == pytest.approx([float(r) for r in PUBLISHED_RHOS])


def test_thresholds(tables, expected):
    found = family(tables["val"], PUBLISHED_RHOS)
    wanted = [[np.inf if t is None else t for t in row["thresholds"]] for row in expected]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_shares_accuracy_and_cost(tables, expected):
    result = simulate(tables["test"], family(tables["val"], PUBLISHED_RHOS))
    shares = result.count_PK / tables["test"].num_samples
    np.testing.assert_array_equal(shares, [row["exit_share"] for row in expected])
    np.testing.assert_allclose(
        result.top1_pct_P, [row["top1_pct"] for row in expected], rtol=0, atol=1e-9
    )
    np.testing.assert_allclose(
        mean_cost(result.count_PK, tables["test"].macs_K),
        [row["macs"] for row in expected],
        rtol=1e-14,
    )


@pytest.mark.parametrize("budget", [5.92e6, 8e6, 12e6, 16e6, 20e6, 23.4e6])
def test_a_budget_is_met_to_the_sample(tables, budget):
    """The family between its 39 points: within the budget, and less than one sample short."""
    table = tables["val"]
    thresholds_K1 = within_budget(table, budget)
    cost = mean_cost(simulate(table, thresholds_K1[None]).count_PK, table.macs_K)[0]
    assert budget - (table.macs_K[-1] - table.macs_K[0]) / table.num_samples <= cost <= budget


def test_searched_thresholds_lose_nothing(tables):
    """At 33 budgets: on val never below geometric, on test not below by a bootstrap interval."""
    val, test = tables["val"], tables["test"]
    budgets = np.linspace(val.macs_K[0], val.macs_K[-1], 33).tolist()
    searched_PK = optimal_within(val, budgets)
    geometric_PK = np.stack([within_budget(val, budget) for budget in budgets])
    found, base = simulate(val, searched_PK), simulate(val, geometric_PK)
    assert (mean_cost(found.count_PK, val.macs_K) <= budgets).all()
    assert (found.top1_pct_P >= base.top1_pct_P).all()
    right_PN, base_PN = (
        simulate(test, thresholds_PK).prediction_PN == test.labels_N
        for thresholds_PK in (searched_PK, geometric_PK)
    )
    difference_N = right_PN.mean(axis=0) - base_PN.mean(axis=0)
    random, n = np.random.default_rng(0), test.num_samples
    means = [difference_N[random.integers(0, n, n)].mean() for _ in range(500)]
    assert np.quantile(means, 0.975) >= 0


@pytest.mark.parametrize("epsilon", [0.02, 0.1])
def test_guarantees_hold_where_the_naive_threshold_fails(tables, epsilon):
    """Random halves of test calibrate; the risk is that over all of test."""
    family_PK = safe_to_fast(tables["val"])
    loss_PN = losses(tables["test"], family_PK, "disagreement")
    risk_P = loss_PN.mean(axis=1)
    random, n = np.random.default_rng(0), loss_PN.shape[1]
    promised = promise("ltt", "disagreement", epsilon=epsilon, delta=0.1, n=n // 2)
    halves = [loss_PN[:, random.permutation(n)[: n // 2]] for _ in range(200)]
    controlled = risk_P[[last_safe(half_PN, promised) for half_PN in halves]]
    naive = risk_P[[np.flatnonzero(half_PN.mean(axis=1) <= epsilon)[-1] for half_PN in halves]]
    assert (controlled > epsilon).mean() <= 0.1
    assert (naive > epsilon).mean() > 0.1
    assert controlled.mean() > epsilon / 2


@needs_full_files
@pytest.mark.parametrize(
    ("kind", "at_12m", "at_the_top"),
    [
        ("single", 43.7, 45.5),
        ("mean", 44.6, 47.0),
        ("cost-weighted", 44.6, 47.5),
        ("fitted", 44.5, 47.5),
    ],
)
def test_the_lift_of_combining_exits(kind, at_12m, at_the_top):
    val, test = (read_scores(Path(FULL) / f"{split}.safetensors") for split in ("val", "test"))
    policy = fit_policy(
        "geometric",
        val,
        combination=kind,
        confidence="max-prob",
        temperature=False,
        budgets_macs=(12e6, 20e6, 23.4e6),
    )
    points = budget(policy, test, run=None).points
    assert points[0].top1_pct == pytest.approx(at_12m, abs=0.1)
    assert max(p.top1_pct for p in points) == pytest.approx(at_the_top, abs=0.1)


@needs_full_files
def test_from_logits_to_the_record(expected):
    val, test = (read_scores(Path(FULL) / f"{split}.safetensors") for split in ("val", "test"))
    policy = fit_policy(
        "geometric",
        val,
        combination="single",
        confidence="max-prob",
        temperature=False,
        budgets_macs=(),
    )
    record = budget(policy, test, run=None)
    for found, row in zip(record.points, expected, strict=True):
        for threshold, wanted in zip(found.thresholds, row["thresholds"], strict=True):
            assert threshold == (None if wanted is None else pytest.approx(wanted, abs=1e-6))
        assert list(found.exit_share) == row["exit_share"]
        assert found.top1_pct == pytest.approx(row["top1_pct"], abs=1e-9)
        assert found.macs == pytest.approx(row["macs"], rel=1e-14)


@needs_full_files
@pytest.mark.parametrize(
    ("kind", "top1_pct"),
    [("single", [38.5, 40.9, 43.2, 44.5, 44.3]), ("mean", [38.5, 42.3, 44.7, 46.2, 47.0])],
)
def test_combining_exits(kind, top1_pct):
    test = read_scores(Path(FULL) / "test.safetensors")
    combination = fixed_combination(kind, test.macs_K)
    record = anytime(test, combination, (1.0,) * 5, ece_bins=15, run=None)
    assert [row.top1_pct for row in record.exits] == pytest.approx(top1_pct, abs=0.051)
