"""What a report reads from a run, and what it says is missing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from report_runs import content_of, contents_of, make_run, make_scores

from hdkd_cli.errors import CheckpointError, DataError
from hdkd_cli.evaluation.policy import read_policy
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.simulate import budget
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.settings.data import DataSettings
from hdkd_cli.settings.networks import MSDNetSettings
from hdkd_cli.settings.schema import Settings
from hdkd_cli.ui.report.facts import differing_settings, facts, headline, setting_rows
from hdkd_cli.ui.report.published import networks, published_for
from hdkd_cli.ui.report.read import comparisons, printable, read_runs


def test_a_whole_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", seed=3)
    content = content_of(run)
    assert content.missing == ()
    assert content.label == "run"
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
    assert said["training time"].startswith(
        "0:02:41"
    )  # 160 steps of 64 images at 64 per s, and 1 s
    assert said["multiply-accumulates"] == "1.00 M (exit 1) to 3.00 M (last exit)"


def test_where_settings_come_from(tmp_path: Path) -> None:
    origin = {"model.exits": "--set", "optimizer.momentum": "file mine.toml"}
    content = content_of(make_run(tmp_path / "run", origin=origin))
    rows = {key: (value, origin) for key, value, origin in setting_rows(content)}
    assert rows["model.exits"] == ("3", "--set")
    assert rows["optimizer.momentum"][1] == "file mine.toml"
    assert rows["training.seed"][1] == "unknown"


def test_runs_are_called_by_their_names_or_by_preset_method_and_seed(tmp_path: Path) -> None:
    joint = {"objective": {"teachers": "none"}, "weights": {"learned": False, "init": "balanced"}}
    named = make_run(tmp_path / "my run", sections=joint)
    stamp = "20261124T215352Z"
    a = make_run(tmp_path / f"digits-s2-{stamp}", seed=2, sections=joint)
    b = make_run(tmp_path / f"digits-s2-{stamp}-1", seed=2)
    assert [run.label for run in contents_of(named, a, b)] == [
        "A · my run", "B · digits joint s2", "C · digits hdkd s2",
    ]  # fmt: skip
    assert content_of(b).label == "digits hdkd s2"


def test_training_time_survives_a_resume(tmp_path: Path) -> None:
    """A resume cuts the log back, and the end of the session before is gone with it."""
    run = make_run(tmp_path / "run")
    lines = run.metrics.read_text().splitlines()
    again = json.dumps({"event": "run_started", **json.loads(lines[0]), "first_step": 80})
    ended = json.dumps({"event": "run_ended", "step": 160, "status": "finished", "seconds": 9.0})
    run.metrics.write_text("\n".join([*lines[:5], again, *lines[5:], ended, ""]))
    assert facts(content_of(run))["training time"].startswith("0:02:41")


def unavailable(run: RunFolder) -> None:
    raise CheckpointError(f"{run.path}: has no complete checkpoint")


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", records=0, policy=False, status="running")
    (content,) = read_runs([run], unavailable)  # type: ignore[arg-type]
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


def test_why_there_are_no_scores_is_told(tmp_path: Path) -> None:
    def gone(_: RunFolder) -> Scores:
        raise DataError("no folder")

    (content,) = read_runs([make_run(tmp_path / "run")], gone)
    assert content.evaluation is None
    assert content.missing[0].what == "There are no test scores: no folder."


def test_printable() -> None:
    assert (
        printable("a\nb\x1b[31m\udcff ü")
        == "a b\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER} ü"
    )


def test_identical_runs_differ_by_noise_and_better_ones_do_not(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, gain=gain) for name, gain in (("a", 1), ("b", 1), ("c", 3))]
    (comparison,) = comparisons(contents_of(*runs, gains=(1, 1, 3)))
    verdicts = {
        other: {d.verdict for d in comparison.differences if d.other == other}
        for other in ("B · b", "C · c")
    }
    assert verdicts == {"B · b": {"within noise"}, "C · c": {"higher"}}


def test_methods_are_compared_where_seeds_repeat(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"s{seed}", seed=seed) for seed in range(3)]
    fixed = make_run(tmp_path / "o", sections={"weights": {"learned": False}})
    by_run, by_method = comparisons(contents_of(*runs, fixed))
    assert [side.name for side in by_run.sides] == ["A · s0", "B · s1", "C · s2", "D · o"]
    assert [side.seeds for side in by_method.sides] == [(0, 1, 2), (0,)]
    assert differing_settings(contents_of(runs[0], fixed)) == [("weights.learned", "true", "false")]


def test_runs_on_other_data_get_no_verdict(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    scores = make_scores("test")

    def of(run: RunFolder) -> Scores:
        split = f"of {run.path.name}"
        return replace(scores, meta={**scores.meta, "split_sha256": split})

    (comparison,) = comparisons(read_runs([a, b], of))
    assert comparison.differences == ()
    assert [one.name for one in comparison.incomparable] == ["B · b"]


def test_published_numbers_need_the_exact_network() -> None:
    wide = MSDNetSettings(exits=7, base=4, step=2, growth=16)
    cifar = DataSettings(name="cifar100", root="x")
    assert published_for(Settings(data=cifar, model=wide)) is networks()[0]
    narrow = wide.model_copy(update={"growth": 6})
    assert published_for(Settings(data=cifar, model=narrow)) is None
    assert published_for(Settings(data=DataSettings(name="cifar10", root="x"), model=wide)) is None
    for network in networks():
        for method in network.methods:
            assert len(method.top1_pct) == network.model.exits
    for step, first in ((4, 56.64), (7, 62.90)):
        model = MSDNetSettings(
            exits=5, base=step, step=step, channels=32, growth=16, stem="imagenet",
            growth_factors=(1, 2, 4, 4), bottleneck_factors=(1, 2, 4, 4),
        )  # fmt: skip
        found = published_for(Settings(data=DataSettings(name="imagenet", root="x"), model=model))
        assert found is not None
        assert found.methods[0].top1_pct[0] == first
