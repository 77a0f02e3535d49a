"""Run folders: made without collisions, opened by path, re-creating their settings."""

import json
import multiprocessing
from pathlib import Path

import pytest

from hdkd_cli.errors import CheckpointError, RunError, UsageError
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.runs.metrics import MetricsLog, read_metrics
from hdkd_cli.settings.schema import Settings, TrainingSettings

SETTINGS = Settings(training=TrainingSettings(seed=3))


def test_two_runs_in_one_second_do_not_collide(tmp_path):
    runs = [RunFolder.create(tmp_path, "digits", SETTINGS) for _ in range(3)]
    assert len({run.path for run in runs}) == 3
    assert all(run.path.name.startswith("digits-s3-") for run in runs)


def test_the_folder_re_creates_the_settings(tmp_path):
    run = RunFolder.create(tmp_path, "digits", SETTINGS, name="mine")
    assert RunFolder.open(tmp_path / "mine").settings() == SETTINGS
    assert run.info().seed == 3
    assert run.info().status == "created"
    run.update_info(status="finished")
    assert run.info().status == "finished"
    assert run.info().seed == 3


def test_an_existing_name_is_refused_and_left_alone(tmp_path):
    RunFolder.create(tmp_path, "digits", SETTINGS, name="mine")
    before = (tmp_path / "mine" / "run.json").read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        RunFolder.create(tmp_path, "digits", Settings(), name="mine")
    assert (tmp_path / "mine" / "run.json").read_bytes() == before


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp/x"])
def test_a_name_is_no_path(tmp_path, name):
    with pytest.raises(UsageError, match="--name"):
        RunFolder.create(tmp_path, "digits", SETTINGS, name=name)


def test_missing_and_foreign_folders_are_refused(tmp_path):
    with pytest.raises(RunError, match="no such run"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(RunError, match="not a run folder"):
        RunFolder.open(tmp_path)


def test_a_run_without_checkpoint_says_how_to_finish_it(tmp_path):
    run = RunFolder.create(tmp_path, "digits", SETTINGS)
    with pytest.raises(CheckpointError, match="--resume"):
        run.checkpoint()


def test_what_a_later_version_wrote_into_run_json_stays(tmp_path):
    run = RunFolder.create(tmp_path, "digits", SETTINGS)
    run.update_info(weather="rain")
    run.update_info(status="running")
    assert json.loads((run.path / "run.json").read_text())["weather"] == "rain"


def test_images_that_are_left_out_are_found_again_by_names_that_are_no_text(tmp_path):
    run = RunFolder.create(tmp_path, "digits", SETTINGS)
    assert run.skipped() == ()
    run.update_info(skipped={"train/a\udcff.png": "truncated"})
    run.update_info(status="running")
    assert run.skipped() == ("train/a\udcff.png",)
    assert run.info().skipped == {"train/a?.png": "truncated"}  # for people


def test_damaged_run_json(tmp_path):
    run = RunFolder.create(tmp_path, "digits", SETTINGS)
    (run.path / "run.json").write_text("{")
    with pytest.raises(RunError, match="is not JSON"):
        run.info()


def _hold(path: Path, held, release) -> None:
    with RunFolder.open(path).locked():
        held.set()
        release.wait(20)


@pytest.mark.slow
def test_only_one_process_trains_a_run(tmp_path):
    run = RunFolder.create(tmp_path, "digits", SETTINGS)
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(run.path, held, release))
    other.start()
    assert held.wait(20)
    with pytest.raises(RunError, match="another process"), run.locked():
        pass
    release.set()
    other.join(20)
    with run.locked():
        pass


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.append({"event": "step", "step": 1})
    offset = log.durable_offset()
    log.append({"event": "step", "step": 2})
    log.close()
    log = MetricsLog(path, keep_bytes=offset)
    log.append({"event": "step", "step": 3})
    log.close()
    assert [r["step"] for r in read_metrics(path)] == [1, 3]
    with path.open("a") as file:
        file.write('{"step": 4')  # killed in the middle of a line
    assert [r["step"] for r in read_metrics(path)] == [1, 3]


def test_a_job_finds_its_newest_run(tmp_path):
    assert RunFolder.of_launch(tmp_path / "runs", "job") is None
    RunFolder.create(tmp_path, "digits", SETTINGS)
    older, newer = (RunFolder.create(tmp_path, "digits", SETTINGS, launch="job") for _ in range(2))
    RunFolder.create(tmp_path, "digits", SETTINGS, launch="other")
    older.update_info(created="2026-01-01T00:00:00+00:00")
    broken = RunFolder.create(tmp_path, "digits", SETTINGS, launch="job")
    (broken.path / "run.json").write_text("{")
    assert RunFolder.of_launch(tmp_path, "job") == newer
    assert RunFolder.of_launch(tmp_path, "none of them") is None
