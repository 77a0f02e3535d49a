"""Budgets of time: what a time is, and that thresholds found for times are the best for them."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdkd_cli.errors import BudgetError, PolicyError, UsageError
from hdkd_cli.evaluation.calibration import fit_policy
from hdkd_cli.evaluation.operating_point import geometric_point
from hdkd_cli.evaluation.policy import ExitPolicy, parse_policy, read_policy, write_policy
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.simulate import budget, mean_cost, simulate
from hdkd_cli.evaluation.table import tabulate
from hdkd_cli.evaluation.times import ExitTimes, parse_time, times_of
from hdkd_cli.records.profile import Latency, Profile, ProfiledExit

MACS = (100, 200, 400)
SCALE = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}


def times(*seconds: float) -> ExitTimes:
    return ExitTimes(seconds=seconds, batch=1, runtime="torch", device="a clock", source="a test")


def made_up_scores(samples: int, seed: int, macs_K=MACS) -> Scores:
    """Three exits over six classes, the later the more often right, surer where they are right."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(6, size=samples)
    skill_N = rng.uniform(size=samples)
    logits_KNC = rng.normal(size=(3, samples, 6))
    for k in range(3):
        logits_KNC[k, np.arange(samples), labels_N] += 4 * skill_N + k - 0.5
    return Scores(logits_KNC.astype(np.float32), labels_N, macs_K)


def fitted(scores: Scores, **more) -> ExitPolicy:
    how = {"combination": "single", "confidence": "max-prob", "temperature": False}
    return fit_policy("optimal", scores, **how, **({"budgets_macs": ()} | more))


@given(st.decimals("0.001", "1e6", places=3), st.sampled_from(sorted(SCALE)))
def test_a_time_is_a_number_and_its_unit(number, unit):
    assert parse_time(f"{number}{unit}") == pytest.approx(float(number) * SCALE[unit])
    assert parse_time(f" {number} {unit}\n") == parse_time(f"{number}{unit}")


@given(st.one_of(st.text(max_size=8), st.from_regex(r"[0-9.]{1,6}[kKmMgG]?", fullmatch=True)))
def test_whatever_has_no_unit_of_time_is_none(text):
    if text.strip().endswith("s"):
        return
    assert parse_time(text) is None


def test_no_time_is_no_budget():
    with pytest.raises(UsageError, match="0ms"):
        parse_time("0ms")


@settings(max_examples=15)
@given(
    st.lists(st.integers(1, 10**7), min_size=3, max_size=3, unique=True).map(sorted),
    st.floats(0, 1),
)
def test_times_take_the_place_of_costs(nanoseconds, reach):
    seconds = [1e-9 * one for one in nanoseconds]
    wanted = seconds[0] + reach * (seconds[2] - seconds[0])
    by_time = fitted(made_up_scores(60, 1), times=times(*seconds), budgets_seconds=[wanted])
    by_cost = fitted(made_up_scores(60, 1, tuple(nanoseconds)), budgets_macs=[1e9 * wanted + 1e-3])
    assert by_time.points[0].thresholds == by_cost.points[0].thresholds
    assert by_time.points[0].val_seconds == pytest.approx(1e-9 * by_cost.points[0].val_macs)
    assert by_time.points[0].val_seconds <= wanted + 1e-12
    assert by_time.within(wanted) == by_time.points[0]
    assert by_time.points[0].target_seconds == wanted
    assert by_time.points[0].target_macs is None


@pytest.mark.parametrize("seed", range(4))
def test_no_thresholds_are_better_for_these_times(seed):
    """Every pair of thresholds is tried. The second exit takes far more time than its MACs say."""
    scores, taken = made_up_scores(400, seed), times(1e-3, 3.5e-3, 4e-3)
    table = tabulate(scores, fitted(scores).combination, (1.0,) * 3, "max-prob")
    steps = [np.append(np.quantile(row, np.linspace(0, 1, 60)), np.inf) for row in
             table.confidence_KN[:2]]  # fmt: skip
    all_PK = np.array(list(itertools.product(*steps)), np.float32)
    result = simulate(table, all_PK)
    seconds_P = taken.mean(result.count_PK)
    for wanted in (1.6e-3, 2.2e-3, 3e-3):
        best = result.top1_pct_P[seconds_P <= wanted].max()
        (point,) = fitted(scores, times=taken, budgets_seconds=[wanted]).points
        assert point.val_seconds <= wanted
        assert point.val_top1_pct >= best - 1.0  # it climbs on a smooth estimate of right answers
        same_time = [
            p.val_top1_pct
            for p in fitted(scores).points
            if taken.mean(simulate(table, _row(p)).count_PK)[0] <= wanted
        ]
        assert point.val_top1_pct >= max(same_time)


def test_an_exit_that_takes_no_time_of_its_own():
    scores, wanted = made_up_scores(200, 0), 2e-3
    (point,) = fitted(scores, times=times(1e-3, 1e-3, 4e-3), budgets_seconds=[wanted]).points
    assert 1e-3 < point.val_seconds <= wanted


def _row(point) -> np.ndarray:
    return np.array([[np.inf if t is None else t for t in point.thresholds]], np.float32)


def test_a_point_is_found_by_its_time():
    policy = fitted(made_up_scores(200, 0), times=times(1e-3, 3e-3, 4e-3))
    assert {point.target_seconds for point in policy.points} == {None}
    found = policy.within(2e-3)
    slower = [p for p in policy.points if p.val_top1_pct > found.val_top1_pct]
    assert found.val_seconds <= 2e-3
    assert slower
    assert all(p.val_seconds > 2e-3 for p in slower)
    with pytest.raises(BudgetError, match=r"budget of 0\.5 ms: the fastest point .* takes 1"):
        policy.within(5e-4)
    with pytest.raises(UsageError, match="calibrated for multiply-accumulates"):
        fitted(made_up_scores(200, 0)).within(2e-3)


def test_a_time_shorter_than_the_first_exit():
    with pytest.raises(BudgetError, match=r"budget of 0\.9 ms: the first exit already takes 1,"):
        fitted(made_up_scores(60, 0), times=times(1e-3, 2e-3, 3e-3), budgets_seconds=[9e-4])


def test_evaluation_tells_the_expected_time():
    scores = made_up_scores(200, 0)
    policy = fitted(scores, times=times(1e-3, 3e-3, 4e-3), budgets_seconds=[2e-3])
    (row,) = budget(policy, scores, run=None).points
    assert row.expected_seconds == pytest.approx(np.dot(row.exit_share, [1e-3, 3e-3, 4e-3]))
    assert row.target_seconds == 2e-3
    assert row.macs == pytest.approx(np.dot(row.exit_share, MACS))
    (without,) = budget(fitted(scores, budgets_macs=[200.0]), scores, run=None).points
    assert without.expected_seconds is None


def test_a_policy_with_times_is_read_as_it_was_written(tmp_path):
    scores = made_up_scores(200, 0)
    how = {"combination": "single", "confidence": "max-prob", "temperature": False}
    taken = times(1e-3, 3e-3, 4e-3)
    policy = fit_policy("geometric", scores, **how, budgets_macs=(), times=taken)
    solved = geometric_point(policy, scores, 200.0)  # a budget in MACs, though it knows times
    assert 1e-3 < solved.val_seconds < 4e-3
    for kept in (policy, policy.only(solved)):
        write_policy(tmp_path / "policy.json", kept)
        assert read_policy(tmp_path / "policy.json") == kept
    record = policy.only(solved).as_record()
    record["points"][0]["val_seconds"] = None
    with pytest.raises(PolicyError, match="val_seconds belong to a policy with times"):
        parse_policy(json.dumps(record), "here")
    record = policy.as_record()
    record["times"]["seconds"] = [1e-3, 3e-3]
    with pytest.raises(PolicyError, match="times of 2 exits, 3 are needed"):
        parse_policy(json.dumps(record), "here")
    record["times"]["seconds"] = [1e-3, 3e-3, 2e-3]
    with pytest.raises(PolicyError, match="less time than the one before it"):
        parse_policy(json.dumps(record), "here")


def profile(macs_K=MACS, one=(1.0, 3.0, 2.5), many=(8.0, 16.0, 32.0)) -> Profile:
    rows = [
        ProfiledExit(
            exit=k + 1, params=1, macs=macs_K[k], macs_eager=1, ops=1, throughput_images_per_s=1,
            latency_ms=Latency(batch=1, median=one[k], p95=one[k], runtime="onnx"),
            batch_latency_ms=Latency(batch=16, median=many[k], p95=many[k]),
        )
        for k in range(3)
    ]  # fmt: skip
    return Profile(device="a clock", precision="fp32", exits=tuple(rows), policy=None)


def test_the_times_of_a_profile():
    found = times_of(profile(), MACS, "somewhere", batched=False)
    assert found.seconds == (1e-3, 3e-3, 3e-3)  # none is faster than the one before it
    assert (found.batch, found.runtime, found.device) == (1, "onnx", "a clock")
    batched = times_of(profile(), MACS, "somewhere", batched=True)
    assert batched.seconds == (0.5e-3, 1e-3, 2e-3)
    assert (batched.batch, batched.runtime) == (16, "torch")
    with pytest.raises(PolicyError, match="somewhere: is the profile of another network"):
        times_of(profile(), (100, 200, 500), "somewhere", batched=False)


def test_mean_times_are_those_of_costs():
    count_PK = np.array([[1, 2, 3], [6, 0, 0]])
    taken = times(1e-3, 2e-3, 5e-3)
    assert taken.mean(count_PK) == pytest.approx(mean_cost(count_PK, taken.nanoseconds_K) / 1e9)
