"""`hdkd study`: a plan that is wrong, and one that is trained, stopped and gone on with."""

import json
from pathlib import Path

import pytest

from hdkd_cli import app

PLAN = """
[study]
seeds = [0, 1]
references = ["joint"]
budgets = [0.1, 0.6]
[settings.tiny]
preset = "digits"
[settings.tiny.set]
"model.exits" = 3
"model.channels" = 8
"model.growth" = 4
"data.train_per_class" = 10
"data.val_per_class" = 5
"training.batch_size" = 16
"training.epochs" = 2
"training.log_every" = 3
[methods.joint]
set = { method = "joint" }
[methods.learned]
set = { method = "hdkd", "weights.interval" = 2 }
[methods.broken]
set = { method = "joint", "optimizer.lr" = 1e30 }
"""


@pytest.fixture
def hdkd(capfd):
    """Runs a command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = app.run([str(argument) for argument in arguments])
        said = capfd.readouterr()
        return code, said.out, said.err

    return run


def test_a_wrong_plan_ends_with_2_before_anything_is_trained(hdkd, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN.replace('references = ["joint"]', 'references = ["nobody"]'))
    code, _, stderr = hdkd("study", plan, "-o", tmp_path / "study")
    assert code == 2
    assert "'nobody' is no method of the plan" in stderr
    assert not (tmp_path / "study").exists()


def test_a_wrong_setting_of_a_method_is_found_before_anything_is_trained(hdkd, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN.replace('"optimizer.lr"', '"optimizer.rate"'))
    code, _, stderr = hdkd("study", plan, "-o", tmp_path / "study")
    assert code == 2
    assert "tiny, broken" in stderr
    assert "optimizer.rate" in stderr


@pytest.mark.slow
def test_the_signal_is_measured_and_drawn_before_anything_is_trained(hdkd, tmp_path):
    plan, folder = tmp_path / "plan.toml", tmp_path / "study"
    plan.write_text(PLAN.partition("[methods.broken]")[0])
    _, stdout, _ = hdkd("study", plan, "-o", folder, "--signal")
    record = json.loads(stdout)
    assert record["schema"] == "hdkd/signal/1"
    assert json.loads((folder / "signal.json").read_text()) == record
    moments = {entry["step"] for entry in record["entries"]}
    candidates = {entry["candidate"] for entry in record["entries"]}
    assert "continuations" in candidates
    assert len(record["entries"]) == len(moments) * len(candidates)
    for entry in record["entries"]:
        assert entry["t_values"].keys() == {"share of distillation", "reach"}
    assert (folder / "signal-tiny.png").stat().st_size > 1000
    assert not (folder / "runs").exists()


@pytest.mark.slow
def test_a_study_is_trained_told_and_not_trained_again(hdkd, tmp_path):
    plan, folder = tmp_path / "plan.toml", tmp_path / "study"
    plan.write_text(PLAN)
    _, stdout, _ = hdkd("study", plan, "-o", folder, "--jobs", "2")
    record = json.loads(stdout)
    assert record["schema"] == "hdkd/study/1"
    assert {(r["method"], r["seed"]) for r in record["runs"]} == {
        (method, seed) for method in ("joint", "learned") for seed in (0, 1)
    }
    assert set(record["failed"]) == {"tiny-broken-s0", "tiny-broken-s1"}
    assert all("exit code 4" in why for why in record["failed"].values())
    for row in record["runs"]:  # no exit is as cheap as a tenth
        assert row["single_top1_pct"][0] is row["combined_top1_pct"][0] is None
        assert min(row["single_top1_pct"][1], row["combined_top1_pct"][1]) > 0
    assert {c["method"] for c in record["contrasts"]} == {"learned"}
    lines = (folder / "study.csv").read_text().splitlines()
    assert len(lines) == 1 + 4
    assert "| learned | 2 |" in (folder / "study.md").read_text()
    for picture in ("weights-tiny-learned.png", "budgets-tiny.png"):
        assert (folder / picture).stat().st_size > 1000

    def stamps() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in folder.glob("runs/*/checkpoints/*/state.json")}

    before = stamps()
    (folder / "rows" / "tiny-joint-s1.json").unlink()
    plan.write_text(PLAN.partition("[methods.broken]")[0])
    _, stdout, _ = hdkd("study", plan, "-o", folder)
    assert json.loads(stdout)["runs"] == record["runs"]
    assert stamps() == before

    _, stdout, _ = hdkd("study", plan, "-o", folder, "--dry-run")
    assert {r["state"] for r in json.loads(stdout)["runs"]} == {"done"}

    plan.write_text(plan.read_text().replace('epochs" = 2', 'epochs" = 1'))
    code, _, stderr = hdkd("study", plan, "-o", folder)
    assert code == 2
    assert "was measured under another plan" in stderr
