"""Differences by seed against scipy, the stopping rule, agreement of weights between seeds."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from small_runs import small_settings

from hdkd_cli.records.study import Study, StudyRow
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.study.compare import contrasts, enough_seeds, overall, weights_alike
from hdkd_cli.study.plan import Plan
from hdkd_cli.study.write import csv_text, markdown


def plan(**study: object) -> Plan:
    return Plan.model_validate(
        {
            "study": {"seeds": [0, 1, 2, 3], "references": ["a"], "budgets": [0.5], **study},
            "settings": {"s": {"preset": "digits"}},
            "methods": {"a": {}, "b": {}, "c": {}},
        }
    )


def row(method: str, seed: int, *top1: float) -> StudyRow:
    return StudyRow(
        setting="s", method=method, seed=seed, epochs=1, split="val", samples=100,
        top1_pct=top1, mean_top1_pct=float(np.mean(top1)), nll=(1.0,) * len(top1), budgets=(0.5,),
        single_top1_pct=(top1[0],), combined_top1_pct=(top1[-1],), seconds=36.0, precision="fp32",
        revision=None, device="cpu", settings_sha256="",
    )  # fmt: skip


A, B, C = [50.0, 52.0, 51.0, 53.5], [51.0, 52.5, 53.0, 54.0], [50.5, 51.0, 51.5, 54.0]
ROWS = [
    row(method, seed, values[seed], values[seed] + 1)
    for method, values in (("a", A), ("b", B), ("c", C))
    for seed in range(4)
]


def test_means_are_compared_by_seed_as_scipy_does():
    found = {(c.method, c.quantity): c for c in contrasts(plan(), ROWS)}
    expected = stats.ttest_rel(B, A)
    interval = expected.confidence_interval(0.95)
    mean = found["b", "mean"]
    assert mean.value == pytest.approx(np.mean(B) - np.mean(A))
    assert (mean.t_low, mean.t_high) == pytest.approx((interval.low, interval.high))
    assert mean.p == pytest.approx(expected.pvalue)
    assert mean.per_seed == pytest.approx(np.subtract(B, A))
    assert {q for _, q in found} == {"mean", "exit 1", "exit 2", "combined 0.5"}
    assert {m for m, _ in found} == {"b", "c"}


def test_p_values_hold_for_all_methods_together():
    found = [c for c in contrasts(plan(), ROWS) if c.quantity == "mean"]
    smaller, larger = sorted(found, key=lambda c: c.p)
    assert smaller.p_holm == pytest.approx(min(1, 2 * smaller.p))
    assert larger.p_holm == pytest.approx(max(larger.p, 2 * smaller.p))


def test_seeds_that_only_one_method_has_are_left_out():
    rows = [r for r in ROWS if (r.method, r.seed) != ("b", 2)]
    mean = next(c for c in contrasts(plan(), rows) if (c.method, c.quantity) == ("b", "mean"))
    assert mean.seeds == 3
    assert mean.value == pytest.approx(np.mean(np.subtract(B, A)[[0, 1, 3]]))


def two_settings(*, seeds_there: int = 4) -> tuple[Plan, list[StudyRow]]:
    one = plan()
    both = one.model_copy(update={"settings": {"s": one.settings["s"], "t": one.settings["s"]}})
    elsewhere = {"a": [60.0, 61.0, 62.5, 60.5], "b": [60.2, 63.0, 62.1, 61.7], "c": C}
    rows = [
        row(method, seed, values[seed], values[seed] + 1).model_copy(update={"setting": "t"})
        for method, values in elsewhere.items()
        for seed in range(seeds_there)
    ]
    return both, ROWS + rows


def test_two_settings_together_are_welchs_test_of_one_against_the_others_negative():
    """The mean of two means is half the difference of one and the negative of the other."""
    both, rows = two_settings(seeds_there=3)
    by_method = {o.method: o for o in overall(both, contrasts(both, rows)) if o.quantity == "mean"}
    here, there = np.subtract(B, A), np.subtract([60.2, 63.0, 62.1], [60.0, 61.0, 62.5])
    expected = stats.ttest_ind(here, -there, equal_var=False)
    interval = expected.confidence_interval(0.95)
    found = by_method["b"]
    assert found.value == pytest.approx((here.mean() + there.mean()) / 2)
    assert (found.t_low, found.t_high) == pytest.approx((interval.low / 2, interval.high / 2))
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.settings, found.seeds) == (2, 7)
    smaller = min(by_method.values(), key=lambda o: o.p)
    assert smaller.p_holm == pytest.approx(min(1, 2 * smaller.p))
    text = markdown(both, Study(runs=rows, contrasts=(), overall=(found,), weights=(), failed={}))
    assert f"| b | a | 7 | {found.value:+.2f} ({found.t_low:+.2f} to {found.t_high:+.2f}) |" in text


def test_one_setting_and_single_seeds_say_nothing_over_settings():
    assert overall(plan(), contrasts(plan(), ROWS)) == []
    both, rows = two_settings(seeds_there=1)
    assert overall(both, contrasts(both, rows)) == []


def test_the_stopping_rule_sees_widths_and_no_signs():
    width = max((c.t_high - c.t_low) / 2 for c in contrasts(plan(), ROWS) if c.quantity == "mean")
    stop = {"half_width_pct": width * 1.01}
    mirrored = [r.model_copy(update={"mean_top1_pct": -r.mean_top1_pct}) for r in ROWS]
    assert enough_seeds(plan(stop=stop), ROWS)
    assert enough_seeds(plan(stop=stop), mirrored)
    assert not enough_seeds(plan(stop={"half_width_pct": width * 0.99}), ROWS)
    assert not enough_seeds(plan(stop={"half_width_pct": 1e6, "min_seeds": 5}), ROWS)
    assert not enough_seeds(plan(stop=stop), [r for r in ROWS if r.method != "c"])
    assert not enough_seeds(plan(), ROWS)


def learned_run(runs: Path, seed: int, weights_RT: list[list[float]]) -> None:
    run = RunFolder.create(runs, "x", small_settings(), name=f"s-a-s{seed}")
    kinds = ["supervision", "supervision", "supervision", "distillation"]
    lines = [{"event": "run_started", "terms": [{"kind": kind} for kind in kinds]}]
    lines += [
        {"event": "step", "step": s, "weights_T": w} for s, w in enumerate(weights_RT, start=1)
    ]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_common_factor_of_the_labels_is_no_trade_off(tmp_path):
    """Seeds 0 and 1 trade labels off alike; in seed 2 all rise, and the trade-off is reversed."""
    start = [1.0, 1.0, 1.0, 0.5]
    learned_run(tmp_path, 0, [start, [1.2, 1.0, 1 / 1.2, 0.5]])
    learned_run(tmp_path, 1, [start, [1.44, 1.0, 1 / 1.44, 0.5]])
    rows = [row("a", seed, 50.0) for seed in (0, 1)]
    (alike,) = weights_alike(plan(), rows, tmp_path)
    assert alike.correlation == pytest.approx(1)
    assert alike.common_pct == pytest.approx(0, abs=1e-6)

    learned_run(tmp_path, 2, [start, [1.9 / 1.2, 1.9, 1.9 * 1.2, 0.5]])
    rows = [row("a", seed, 50.0) for seed in (0, 2)]
    (opposed,) = weights_alike(plan(), rows, tmp_path)
    assert opposed.correlation == pytest.approx(-1)
    assert opposed.correlation_all != pytest.approx(-1)  # all labels rise against distillation
    moved = np.log(1.9) ** 2 * 3
    assert opposed.common_pct == pytest.approx(
        100 * np.mean([0, moved / (moved + 2 * np.log(1.2) ** 2)])
    )


def test_the_files_say_what_the_record_says():
    record = Study(
        runs=tuple(ROWS), contrasts=tuple(contrasts(plan(), ROWS)), weights=(), failed={"x": "why"}
    )
    lines = csv_text(record.runs).splitlines()
    assert len(lines) == 1 + len(ROWS)
    assert "combined_top1_pct@0.5" in lines[0]
    text = markdown(plan(), record)
    assert f"| b | 4 | {np.mean(B) + 0.5:.2f} |" in text
    assert "- x: why" in text


def test_a_budget_below_the_first_exit_and_an_infinite_loss_are_left_open():
    unknown = {"single_top1_pct": (None,), "combined_top1_pct": (None,), "nll": (None, 1.0)}
    rows = [r.model_copy(update=unknown) if r.method == "b" else r for r in ROWS]
    found = contrasts(plan(), rows)
    assert {c.quantity for c in found if c.method == "b"} == {"mean", "exit 1", "exit 2"}
    record = Study(runs=tuple(rows), contrasts=tuple(found), weights=(), failed={})
    line = next(t for t in markdown(plan(), record).splitlines() if t.startswith("| b | 4 | 5"))
    assert line.split(" | ")[5] == "–"
    cells = dict(zip(*(t.split(",") for t in csv_text(rows).splitlines()[::5][:2]), strict=True))
    assert (cells["method"], cells["combined_top1_pct@0.5"], cells["nll_1"]) == ("b", "", "")
