"""A policy that watches itself: seldom a false alarm, however often one looks; a true one soon."""

import itertools
import json
import math
from functools import partial

import numpy as np
import pytest

from hdkd_cli.errors import PolicyError, UsageError
from hdkd_cli.evaluation.audit import Auditing, resume, watching
from hdkd_cli.evaluation.betting import interval, log_capital, lower_bound
from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.evaluation.policy import ExitPolicy, FittedOn, OperatingPoint
from hdkd_cli.evaluation.watch import Promise, Watch, promised
from hdkd_cli.files import write_json

BINARY = np.array([0.0, 1.0])
COST_K = np.array([0.25, 0.5, 1.0])
PROMISE = Promise(max_risk=0.05, max_cost=0.6, delta=0.1)


def capital_by_time(values_V, seen_SN, mean):
    """Log-capital after every one of N images, in S streams."""
    counts_SNV = np.stack([(seen_SN == v).cumsum(axis=1) for v in range(len(values_V))], axis=-1)
    return log_capital(values_V, counts_SNV, mean)


def test_bets_at_fair_odds_gain_nothing():
    """The capital's exact mean over all sequences is 1, and below 1 if the mean is smaller."""
    for true_mean, bet_against in ((0.3, 0.3), (0.2, 0.3)):
        total = 0.0
        for sequence in itertools.product((0, 1), repeat=8):
            ones = sum(sequence)
            probability = true_mean**ones * (1 - true_mean) ** (8 - ones)
            total += probability * math.exp(log_capital(BINARY, np.array([8 - ones, ones]), 0.3))
        assert total == pytest.approx(1) if true_mean == bet_against else total < 1


@pytest.mark.parametrize("risk", [0.05, 0.02])
def test_null_streams_seldom_alarm_however_often_one_looks(risk):
    random = np.random.default_rng(0)
    seen_SN = (random.random((500, 2000)) < risk).astype(int)
    alarmed_S = (capital_by_time(BINARY, seen_SN, 0.05) >= math.log(1 / 0.1)).any(axis=1)
    assert alarmed_S.mean() <= 0.1


def test_null_streams_of_costs_seldom_alarm():
    random = np.random.default_rng(1)
    share_K = (0.4, 0.3, 0.3)
    seen_SN = random.choice(3, size=(500, 2000), p=share_K)
    mean = float(COST_K @ share_K)
    alarmed_S = (capital_by_time(COST_K, seen_SN, mean) >= math.log(1 / 0.1)).any(axis=1)
    assert alarmed_S.mean() <= 0.1


@pytest.mark.parametrize(("risk", "within"), [(0.1, 1600), (0.2, 300), (0.5, 60)])
def test_a_higher_risk_alarms(risk, within):
    random = np.random.default_rng(2)
    seen_SN = (random.random((500, within)) < risk).astype(int)
    alarmed_S = (capital_by_time(BINARY, seen_SN, 0.05) >= math.log(2 / 0.1)).any(axis=1)
    assert alarmed_S.mean() >= 0.95


@pytest.mark.parametrize("risk", [0.01, 0.1, 0.5])
def test_the_interval_holds_at_all_times(risk):
    random = np.random.default_rng(3)
    missed, widths = 0, []
    for _ in range(100):
        seen_N = (random.random(1000) < risk).astype(int)
        found = [
            interval(BINARY, np.bincount(seen_N[:n], minlength=2), 0.05) for n in (10, 100, 1000)
        ]
        missed += any(not one.low <= risk <= one.high for one in found)
        widths.append([one.high - one.low for one in found])
    assert missed <= 10
    assert (np.diff(widths, axis=1) < 0).all()
    assert np.mean(widths, axis=0)[-1] < 0.13


def test_the_lower_bound_is_where_the_capital_reaches():
    counts = np.array([180, 20])
    low = lower_bound(BINARY, counts, 0.05)
    assert log_capital(BINARY, counts, low) == pytest.approx(math.log(20), abs=1e-6)
    assert 0.04 < low < 0.1
    assert lower_bound(BINARY, np.array([50, 0]), 0.05) == pytest.approx(0, abs=1e-9)


def watch_of(told=lambda _: None, state=None):
    watch = Watch(PROMISE, COST_K, "a" * 64, 0.5, told, state and partial(write_json, state))
    if state is not None and state.exists():
        resume(watch, state)
    return watch


def test_an_alarm_sounds_once_and_stays():
    told = []
    watch = watch_of(told.append)
    watch.observe([0] * 100, [True] * 100)
    assert not watch.alarms
    assert not told
    for _ in range(5):
        watch.observe([0] * 40, [False] * 20)
    watch.observe([0] * 900, [True] * 900)
    assert watch.alarms == ("risk",)
    assert len(told) == 1
    assert "5.0 % is promised" in told[0]


def test_a_slow_down_sounds_too():
    told = []
    watch = watch_of(told.append)
    watch.observe([0, 1, 2] * 100, [])
    assert not watch.alarms
    watch.observe([2] * 300, [])
    assert watch.alarms == ("cost",)
    assert len(told) == 1


def test_about_so_many_are_drawn():
    watch = watch_of()
    drawn = np.concatenate([watch.draw(50) for _ in range(200)])
    assert set(drawn) == set(range(50))
    assert 0.45 < len(drawn) / 10_000 < 0.55


def test_the_promised_cost_allows_for_the_sample():
    promise = Promise.of((10, 60, 110), 30.0, 200, max_risk=0.1, delta=0.2)
    spread = math.sqrt(math.log(4 / 0.2) / 400)
    assert promise.max_cost == pytest.approx((30 + 100 * spread) / 110)
    assert Promise.of((10, 60, 110), 110.0, 1, max_risk=0.1, delta=0.2).max_cost == 1


def test_what_is_asked_for_goes_before_what_is_guaranteed():
    given = {"loss": "disagreement", "epsilon": 0.05, "delta": 0.2}
    assert promised(given, None, None) == (0.05, 0.2)
    assert promised(given, 0.1, 0.3) == (0.1, 0.3)
    assert promised(given | {"loss": "accuracy-gap", "delta": None}, None, None) == (None, 0.1)
    assert promised(None, None, None) == (None, 0.1)


def test_what_decides_about_leaving_is_watched():
    def identity(checkpoint="c" * 64, **changes):
        point = OperatingPoint(
            target_macs=None, thresholds=(0.5, None), val_macs=30.0, val_top1_pct=50.0
        ).model_copy(update=changes)
        policy = ExitPolicy(
            kind="optimal",
            confidence="margin",
            combination=fixed_combination("mean", (10, 60, 110)),
            temperatures=(1.0,) * 3,
            points=(point,),
            fitted_on=FittedOn(checkpoint_sha256=None, split=None, samples=9),
        )
        asked = Auditing(0.5, max_risk=0.1)
        return watching(policy, point, (10, 60, 110), checkpoint, asked, print).identity

    assert identity() == identity(val_top1_pct=60.0)
    assert len({identity(), identity("d" * 64), identity(thresholds=(0.5, 0.9))}) == 3


def test_counts_go_on_in_a_file(tmp_path):
    path, told = tmp_path / "state.json", []
    first = watch_of(told.append, path)
    first.observe([0, 1, 2, 2], [True, False])
    first.keep()
    second = watch_of(told.append, path)
    assert second.exits_K.tolist() == [1, 1, 2]
    assert second.agreed_2.tolist() == [1, 1]
    second.observe([0] * 60, [False] * 60)  # an alarm is kept at once
    assert second.alarms == watch_of(told.append, path).alarms == ("risk",)
    assert [text.startswith("since an earlier call") for text in told] == [False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"watched_sha256": "b" * 64}, "another policy"),
        ({"max_risk": 0.1}, "another policy"),
        ({"exits": [1, 2]}, "another policy"),
        ({"audited": 9}, "more than there can be"),
        ({"disagreed": 3}, "more than there can be"),
        ({"disagreed": -1}, "disagreed"),
        ({"exits": [1.5, 2, 3]}, "exits"),
        ({"alarms": ["fire"]}, "alarms"),
        ({"schema": "hdkd/policy/1"}, "schema"),
    ],
)
def test_other_states_are_refused(tmp_path, change, message):
    path = tmp_path / "state.json"
    watch = watch_of(state=path)
    watch.observe([0, 1, 2, 2], [True, False])
    watch.keep()
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PolicyError, match=message):
        watch_of(state=path)
    path.write_text("{")
    with pytest.raises(PolicyError, match=r"state\.json"):
        watch_of(state=path)


@pytest.mark.parametrize(
    "wrong", [{"share": 0}, {"share": 1.5}, {"max_risk": 0.0}, {"max_risk": 1}, {"delta": 0.0}]
)
def test_what_is_out_of_range(wrong):
    with pytest.raises(UsageError, match="is needed"):
        Auditing(**{"share": 0.02} | wrong)
