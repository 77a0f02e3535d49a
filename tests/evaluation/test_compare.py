"""Runs side by side: values by hand, intervals by their own functions, images that differ."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hdkd_cli.errors import ScoresError
from hdkd_cli.evaluation.answers import Answers
from hdkd_cli.evaluation.bootstrap import paired_difference
from hdkd_cli.evaluation.compare import compare, refuse_nothing_to_compare
from hdkd_cli.evaluation.paired import holm, over_seeds
from hdkd_cli.evaluation.policy import Combination, ExitPolicy, FittedOn, OperatingPoint
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.settings.methods import METHODS, method_names, method_of
from hdkd_cli.settings.schema import Settings

SAMPLES = 200
META = {"dataset": "digits", "split": "test", "split_sha256": "of test"}


def scores(right_KN: np.ndarray, **meta: Any) -> Scores:
    """Two classes; exit k is right about sample i, with confidence 0.9, where ``right_KN`` says."""
    labels_N = np.arange(right_KN.shape[1]) % 2
    answer_KN = np.where(right_KN, labels_N, 1 - labels_N)
    logits_KNC = np.eye(2, dtype=np.float32)[answer_KN] * np.float32(np.log(9))
    macs_K = tuple(range(10, 10 * len(right_KN) + 1, 10))
    return Scores(logits_KNC, labels_N, macs_K, meta={**META, **meta})


def right(*shares: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((len(shares), SAMPLES)) < np.array(shares)[:, None]


def two_points() -> ExitPolicy:
    """Everything leaves at exit 1 (10 MACs), or nothing does (20 MACs)."""
    return ExitPolicy(
        kind="geometric",
        confidence="max-prob",
        combination=Combination(kind="single", weights=((1.0, 0.0), (0.0, 1.0))),
        temperatures=(1.0, 1.0),
        points=(
            OperatingPoint(target_macs=None, thresholds=(0.0,), val_macs=12.0, val_top1_pct=60.0),
            OperatingPoint(target_macs=None, thresholds=(None,), val_macs=18.0, val_top1_pct=80.0),
        ),
        fitted_on=FittedOn(checkpoint_sha256=None, split="val", samples=10),
    )


def answers(name: str, right_KN: np.ndarray, *, policy: bool = False, **info: Any) -> Answers:
    kept = {"geometric": two_points()} if policy else {}
    meta = info.pop("meta", {})
    return Answers.of(scores(right_KN, **meta), kept, name=name, run=f"runs/{name}", **info)


def test_exits_are_compared_on_the_same_images() -> None:
    ours_KN, theirs_KN = right(0.5, 0.7), right(0.6, 0.7, seed=1)
    record = compare([answers("a", ours_KN), answers("b", theirs_KN)])
    assert [one.what for one in record.differences] == ["exit 1", "exit 2"]
    for k, one in enumerate(record.differences):
        expected = paired_difference(100.0 * theirs_KN[k], 100.0 * ours_KN[k])
        assert (one.first_pct, one.other_pct) == pytest.approx(
            (100 * ours_KN[k].mean(), 100 * theirs_KN[k].mean())
        )
        found = (one.difference_pct, one.low_pct, one.high_pct)
        assert found == pytest.approx((expected.value, expected.low, expected.high))
        assert one.verdict_over == "images"
        assert one.p is None
    assert record.as_record()["schema"] == "hdkd/comparison/1"


def test_budgets_read_the_best_point_within_them() -> None:
    ours_KN, theirs_KN = right(0.5, 0.7), right(0.6, 0.9, seed=1)
    a, b = answers("a", ours_KN, policy=True), answers("b", theirs_KN, policy=True)
    found = compare([a, b])
    budgets = [one for one in found.differences if one.budget_macs is not None]
    assert [one.budget_macs for one in budgets] == np.linspace(10, 20, 33).tolist()
    for one in budgets:
        # Below 12 no point fits: exit 1. From 18 on the second point: exit 2.
        k = int((one.budget_macs or 0) >= 18)
        assert one.other_pct == pytest.approx(100 * theirs_KN[k].mean())
    mean = found.differences[-1]
    assert mean.what == "geometric, mean of 33 budgets"
    assert mean.other_pct == pytest.approx(np.mean([one.other_pct for one in budgets]))
    assert found.comparisons == 3  # two exits and the mean; the grid is one curve

    chosen = compare([a, b], budgets=[20.0])
    assert [one.what for one in chosen.differences] == ["exit 1", "exit 2", "geometric at 0.00 M"]
    assert chosen.comparisons == 3


def test_a_policy_that_some_lack_is_told_not_compared() -> None:
    a, b = answers("a", right(0.5, 0.7), policy=True), answers("b", right(0.5, 0.7))
    record = compare([a, b])
    assert {one.policy for one in record.differences} == {None}
    assert record.notes == ("Policy geometric is not compared: not all of the runs have it",)


def test_methods_are_paired_by_seed() -> None:
    ours = [right(0.5, 0.7, seed=s) for s in (0, 1, 2)]
    theirs = [right(0.6, 0.7, seed=s) for s in (10, 11, 12)]
    runs = [answers(f"j{s}", r, method="joint", seed=s) for s, r in enumerate(ours)]
    runs += [
        answers(f"h{s}", r, method="hdkd", seed=s) for s, r in zip((2, 1, 0), theirs, strict=True)
    ]
    record = compare(runs, by="method")
    assert [(side.name, side.seeds) for side in record.sides] == [
        ("joint", (0, 1, 2)),
        ("hdkd", (2, 1, 0)),
    ]
    one = record.differences[0]
    expected = over_seeds(
        [100 * r[0].mean() for r in ours], [100 * r[0].mean() for r in reversed(theirs)]
    )
    assert one.seeds == 3
    assert (one.seeds_t_low_pct, one.seeds_t_high_pct) == pytest.approx(
        (expected.t_low, expected.t_high)
    )
    assert one.verdict_over == "seeds"
    assert one.verdict == ("within noise" if expected.t_low <= 0 else "higher")
    assert [d.p_holm for d in record.differences] == pytest.approx(
        holm([d.p for d in record.differences])
    )
    level = record.sides[0].levels[0]
    values = [100 * r[0].mean() for r in ours]
    assert level.mean_pct == pytest.approx(np.mean(values))
    assert level.deviation_pct == pytest.approx(np.std(values, ddof=1))
    assert (level.min_pct, level.max_pct) == (min(values), max(values))


def test_seeds_that_differ_alike_leave_the_verdict_to_the_images() -> None:
    """Two seeds that gain the same number of images: no spread, so t would promise certainty."""
    theirs_KN = right(0.5, 0.7)
    ours_KN = theirs_KN.copy()
    ours_KN[:, np.flatnonzero(theirs_KN[0])[:1]] = False
    runs = [answers(f"j{s}", ours_KN, method="joint", seed=s) for s in (0, 1)]
    runs += [answers(f"h{s}", theirs_KN, method="hdkd", seed=s) for s in (0, 1)]
    one = compare(runs, by="method").differences[0]
    assert one.difference_pct == pytest.approx(100 / SAMPLES)
    assert (one.seeds, one.seeds_t_low_pct, one.p, one.p_holm) == (2, None, None, None)
    assert (one.verdict, one.verdict_over) == ("within noise", "images")


def test_seeds_that_one_side_lacks_and_seeds_given_twice() -> None:
    r = right(0.5, 0.7)
    runs = [answers(f"j{s}", r, method="joint", seed=s) for s in (0, 1)]
    runs += [answers("again", r, method="joint", seed=1), answers("h", ~r, method="hdkd", seed=1)]
    record = compare(runs, by="method")
    assert record.sides[0].seeds == (0, 1)
    assert record.differences[0].seeds == 1
    assert record.differences[0].verdict_over == "images"
    assert record.notes == (
        "again: seed 1 of joint is there already; left out",
        "hdkd: 1 seeds in common with joint; only they are compared",
    )


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        ({"dataset": "cifar10"}, "another data set (cifar10, not digits)"),
        ({"split": "val"}, "another split (val, not test)"),
        ({"split_sha256": "of others"}, "other images of the split"),
    ],
)
def test_other_images_get_no_number(meta: dict[str, str], reason: str) -> None:
    r = right(0.5, 0.7)
    record = compare([answers("a", r), answers("b", r, meta=meta), answers("c", r)])
    assert [(one.name, one.reason) for one in record.incomparable] == [("b", reason)]
    assert {one.other for one in record.differences} == {"c"}
    alone = compare([answers("a", r), answers("b", r, meta=meta)])
    assert alone.differences == ()
    with pytest.raises(ScoresError, match="b: "):
        refuse_nothing_to_compare(alone)


def test_without_fingerprints_labels_decide() -> None:
    r = right(0.5, 0.7)
    named = [answers("a", r), answers("b", r), answers("c", r[:, :-1])]
    a, b, shorter = (replace(one, meta={}) for one in named)
    record = compare([a, b, shorter])
    assert {one.other for one in record.differences} == {"b"}
    assert [one.reason for one in record.incomparable] == ["other images"]


@pytest.mark.parametrize(("macs", "exit"), [(15, 1), (20, 2), (5, 1)])
@pytest.mark.parametrize("static_first", [False, True])
def test_a_static_network_is_compared_at_its_cost(macs: int, exit: int, static_first: bool) -> None:
    ours_KN, static_KN = right(0.5, 0.9), right(0.7, seed=1)
    ours = answers("exits", ours_KN, policy=True)
    static = replace(answers("static", static_KN), macs_K=(macs,))
    other = answers("other", right(0.6, 0.8, seed=2), policy=True)
    record = compare([static, ours, other] if static_first else [ours, other, static])
    found = [d for d in record.differences if "the cost of static" in d.what]
    if static_first:
        assert len(found) == len(record.differences) == 2
    (one, *_) = found
    right_N = 100.0 * ours_KN[exit - 1], 100.0 * static_KN[0]
    expected = paired_difference(*(right_N if static_first else right_N[::-1]))
    assert (one.exit, one.policy, one.budget_macs) == (None, "geometric", macs)
    assert one.difference_pct == pytest.approx(expected.value)
    assert any("no exit as cheap as static" in note for note in record.notes) == (macs == 5)
    levels = {side.name: [level.what for level in side.levels] for side in record.sides}
    assert levels["static"] == ["exit 1"]
    assert levels["exits"][:2] == ["exit 1", "exit 2"]
    if not static_first:  # the others are compared as if it were not there
        without = compare([ours, other])
        assert record.differences[:-1] == without.differences


def test_static_networks_among_themselves_are_compared_at_their_exit() -> None:
    record = compare([answers("a", right(0.5)), answers("b", right(0.7, seed=1))])
    assert [one.what for one in record.differences] == ["exit 1"]


def test_a_static_network_without_a_policy_to_compare_with_is_told() -> None:
    record = compare([answers("exits", right(0.5, 0.9)), answers("static", right(0.7))])
    assert record.differences == ()
    assert record.notes == ("static is not compared: exits has no policy to set beside it",)


@pytest.mark.parametrize("method", METHODS)
def test_methods_are_recognised(method: str) -> None:
    assert method_of(Settings.model_validate(METHODS[method])) == method


def test_names_of_methods_say_what_else_differs() -> None:
    joint, hdkd = METHODS["joint"], METHODS["hdkd"]
    short = {**hdkd, "training": {"epochs": 3, "seed": 4}}
    long = {**hdkd, "training": {"epochs": 9, "max_minutes": 60, "log_every": 5}}
    odd = {"objective": {"teachers": "last"}, "weights": {"learned": False, "init": "uniform"}}
    settings = [Settings.model_validate(s) for s in (joint, short, long, odd)]
    assert method_names(settings) == [
        "joint", "hdkd (training.epochs=3)", "hdkd (training.epochs=9)", "custom",
    ]  # fmt: skip
