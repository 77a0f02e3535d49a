"""What a report reads from a run, and what it says is missing."""

import json
from pathlib import Path

import numpy as np
import pytest
from report_runs import CHECKPOINT, content_of, make_run, make_scores

from hdkd_cli.errors import CheckpointError, DataError
from hdkd_cli.evaluation.policy import read_policy
from hdkd_cli.evaluation.scores import write_scores
from hdkd_cli.evaluation.simulate import budget
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.settings.networks import MSDNetSettings
from hdkd_cli.settings.schema import DataSettings, Settings
from hdkd_cli.ui.report.comparison import compare, differing_settings, seed_groups, spread
from hdkd_cli.ui.report.content import printable, read_run
from hdkd_cli.ui.report.facts import facts, headline, setting_rows
from hdkd_cli.ui.report.published import NETWORKS, published_for


def test_a_whole_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", seed=3)
    content = content_of(run, seed=3)
    assert content.missing == ()
    assert content.label == "digits s3"
    assert content.history is not None
    assert content.history.num_exits == 3
    taught = [(t.student, t.teacher) for t in content.history.terms if t.kind == "distillation"]
    assert taught == [(1, 2), (1, 3), (2, 3)]
    # ce[1] ce[2] ce[3] kd[2->1] kd[3->1] kd[3->2], at the first record 1 + 0.01 · place
    np.testing.assert_allclose(
        content.history.matrix(0), [[1, 1.03, 1.04], [np.nan, 1.01, 1.05], [np.nan, np.nan, 1.02]]
    )
    assert content.evaluation is not None
    (curve,) = content.evaluation.curves
    assert curve.record["points"] == (
        budget(read_policy(run.policies / "geometric.json"), make_scores("test", seed=3),
                      run=None).as_record()["points"]
    )  # fmt: skip
    best = max(curve.policy.points, key=lambda p: (p.val_top1_pct, -p.val_macs))
    assert curve.policy.points[curve.chosen] == best
    assert f"{curve.point['top1_pct']:.2f} %" in headline(content)
    said = facts(content)
    assert said["training time"].startswith("0:01:01")
    assert said["multiply-accumulates"] == "1.00 M (exit 1) to 3.00 M (last exit)"


def test_where_settings_come_from(tmp_path: Path) -> None:
    content = content_of(make_run(tmp_path / "run"))
    rows = {key: (value, origin) for key, value, origin in setting_rows(content)}
    assert rows["model.exits"] == ("3", "given for this run")
    assert rows["optimizer.momentum"][1] == "default"
    unknown = content_of(make_run(tmp_path / "other", preset="gone"))
    assert {origin for _, _, origin in setting_rows(unknown)} == {"unknown"}


def unavailable(run: RunFolder) -> None:
    raise CheckpointError(f"{run.path}: has no complete checkpoint")


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", records=0, policy=False, status="running")
    content = read_run(run, unavailable)  # type: ignore[arg-type]
    assert content.history is None
    assert content.evaluation is None
    said = " ".join(one.sentence for one in content.missing)
    assert "status: running" in said
    assert f"hdkd train --resume {run.path}" in said
    assert f"hdkd eval-anytime {run.path}" in said
    assert headline(content) == "There are no test scores yet."


def test_a_policy_is_asked_for(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", policy=False)
    (one,) = content_of(run).missing
    assert one.command == f"hdkd calibrate-thresholds {run.path}"


def test_policies_that_do_not_belong_are_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    record = json.loads((run.policies / "geometric.json").read_text())
    record["fitted_on"]["checkpoint_sha256"] = "d" * 64
    run.keep_policy("older", record)
    (run.policies / "broken.json").write_text("{")
    content = content_of(run)
    assert content.evaluation is not None
    assert [curve.name for curve in content.evaluation.curves] == ["geometric"]
    assert sorted(one.what.split("”")[0] for one in content.missing) == [
        "Policy “broken", "Policy “older",
    ]  # fmt: skip


def test_the_policy_calibrated_last_comes_first(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.keep_policy("zeta", json.loads((run.policies / "geometric.json").read_text()))
    evaluation = content_of(run).evaluation
    assert evaluation is not None
    assert [curve.name for curve in evaluation.curves] == ["zeta", "geometric"]


def test_damaged_log(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.metrics.write_text("{\n")
    content = content_of(run)
    assert content.history is None
    assert "cannot be read" in content.missing[0].what


@pytest.mark.parametrize(("kept_of", "usable"), [(CHECKPOINT, True), ("e" * 64, False)])
def test_kept_scores_serve_where_images_are_gone(
    tmp_path: Path, kept_of: str, usable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    write_scores(run.path / "scores" / "test.safetensors", make_scores("test"))

    class Newest:
        model_sha256 = kept_of

    def gone(_: RunFolder) -> None:
        raise DataError("no folder")

    monkeypatch.setattr(RunFolder, "checkpoint", lambda _: Newest())
    content = read_run(run, gone)  # type: ignore[arg-type]
    assert (content.evaluation is not None) == usable
    assert "no folder" in content.missing[0].what


def test_printable() -> None:
    assert (
        printable("a\nb\x1b[31m\udcff ü")
        == "a b\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER} ü"
    )


def test_identical_runs_differ_by_noise_and_better_ones_do_not(tmp_path: Path) -> None:
    first = content_of(make_run(tmp_path / "a"), "A").evaluation
    better = content_of(make_run(tmp_path / "b", gain=3), "B", gain=3).evaluation
    assert first is not None
    assert better is not None
    same = compare(first, first)
    assert [one.what for one in same][:3] == ["exit 1", "exit 2", "exit 3"]
    assert len(same) == 3 + 5 + 1  # exits, budgets, their mean
    assert {one.verdict for one in same} == {"within noise"}
    assert {one.verdict for one in compare(first, better)} == {"higher"}
    assert {one.verdict for one in compare(better, first)} == {"lower"}
    anytime = [exit_["top1_pct"] for exit_ in first.anytime["exits"]]
    assert [one.first_pct for one in same[:3]] == pytest.approx(anytime)
    for one in same:
        assert one.difference.paired


def test_accuracy_at_a_budget_is_the_best_validation_point_within_it(tmp_path: Path) -> None:
    evaluation = content_of(make_run(tmp_path / "a")).evaluation
    assert evaluation is not None
    (curve,) = evaluation.curves
    found = {one.what: one.first_pct for one in compare(evaluation, evaluation)}
    for target in (1.5, 2.0, 2.5, 3.0):
        fits = [
            (policy_point.val_top1_pct, -policy_point.val_macs, point["top1_pct"])
            for policy_point, point in zip(curve.policy.points, curve.record["points"], strict=True)
            if policy_point.val_macs <= target * 1e6
        ]
        assert found[f"geometric, budget {target:.2f} M"] == pytest.approx(max(fits)[2])
    # nothing is cheaper than the first exit
    assert found["geometric, budget 1.00 M"] == pytest.approx(
        evaluation.anytime["exits"][0]["top1_pct"]
    )


def test_seeds_are_grouped(tmp_path: Path) -> None:
    runs = [content_of(make_run(tmp_path / f"s{s}", seed=s), "ABC"[s], seed=s) for s in range(3)]
    other = content_of(make_run(tmp_path / "o", sections={"weights": {"learned": False}}), "D")
    (group,) = seed_groups([*runs, other])
    assert [run.label[0] for run in group] == ["A", "B", "C"]
    row = spread(group)[1]
    values = [run.evaluation.anytime["exits"][1]["top1_pct"] for run in runs if run.evaluation]
    assert row.values_pct == pytest.approx(tuple(values))
    assert row.mean_pct == pytest.approx(np.mean(values))
    assert row.deviation_pct == pytest.approx(np.std(values, ddof=1))
    assert differing_settings([runs[0], other]) == [("weights.learned", "true", "false")]
    assert seed_groups([runs[0], runs[0]]) == []  # a run is not its own repetition


def test_published_numbers_need_the_exact_network() -> None:
    wide = MSDNetSettings(exits=7, base=4, step=2, growth=16)
    cifar = DataSettings(name="cifar100", root="x")
    assert published_for(Settings(data=cifar, model=wide)) is NETWORKS[0]
    narrow = wide.model_copy(update={"growth": 6})
    assert published_for(Settings(data=cifar, model=narrow)) is None
    assert published_for(Settings(data=DataSettings(name="cifar10", root="x"), model=wide)) is None
    for network in NETWORKS:
        for method in network.methods:
            assert len(method.top1_pct_K) == network.model.exits
    for step, first in ((4, 56.64), (7, 62.90)):
        model = MSDNetSettings(
            exits=5, base=step, step=step, channels=32, growth=16, stem="imagenet",
            growth_factors=(1, 2, 4, 4), bottleneck_factors=(1, 2, 4, 4),
        )  # fmt: skip
        found = published_for(Settings(data=DataSettings(name="imagenet", root="x"), model=model))
        assert found is not None
        assert found.methods[0].top1_pct_K[0] == first
