"""Two ranks compute what one process does, agree bit for bit, and survive what happens to one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import several_ranks
import torch
from several_ranks import plain_settings, train_alone, train_on_two_ranks, two_ranks
from small_runs import SMALL, small_settings

from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.runs.metrics import read_metrics

pytestmark = pytest.mark.slow
CLOSE = {"rel": 1e-5, "abs": 1e-6}


def begin(runs_dir, settings):
    return RunFolder.create(runs_dir, "test", settings)


def final_tensors(run):
    return {
        f"{group}/{name}": tensor
        for group in ("model", "optimizer", "weights")
        for name, tensor in run.checkpoint().tensors(group)[0].items()
    }


def events(run, kind):
    return [record for record in read_metrics(run.metrics) if record["event"] == kind]


def assert_same_series(ours, theirs):
    assert [r["step"] for r in ours] == [r["step"] for r in theirs]
    for a, b in zip(ours, theirs, strict=True):
        for key in ("loss", "terms_T", "weights_T", "train_top1_pct_K", "lr"):
            assert a[key] == pytest.approx(b[key], **CLOSE), (a["step"], key)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_ranks_compute_what_one_process_does(runs_dir, accumulate):
    settings = plain_settings(accumulate=accumulate)
    alone, two = begin(runs_dir, settings), begin(runs_dir, settings)
    train_alone(alone, settings)
    seen = train_on_two_ranks(two, settings)
    assert [rank["exception"] for rank in seen] == [None, None]

    assert_same_series(events(two, "step"), events(alone, "step"))
    assert events(alone, "step")[0]["weights_T"] != events(alone, "step")[-1]["weights_T"]
    for ours, theirs in zip(events(two, "evaluated"), events(alone, "evaluated"), strict=True):
        assert ours["top1_pct_K"] == pytest.approx(theirs["top1_pct_K"])
        assert ours["nll_K"] == pytest.approx(theirs["nll_K"], **CLOSE)
    ours, theirs = final_tensors(two), final_tensors(alone)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-6, msg=name)

    # and all ranks have the same weights, learned on different images, bit for bit
    weights = [[step["weights_T"] for step in rank["steps"]] for rank in seen]
    assert len(weights[0]) == 12
    assert weights[0] == weights[1]


def test_two_ranks_are_two_micro_batches_to_batch_norm(runs_dir):
    def settings(accumulate):
        base = small_settings()
        training = base.training.model_copy(update={"accumulate": accumulate, "log_every": 1})
        weights = base.weights.model_copy(update={"learned": False})
        return base.model_copy(update={"training": training, "weights": weights})

    alone, two = begin(runs_dir, settings(2)), begin(runs_dir, settings(1))
    train_alone(alone, settings(2))
    train_on_two_ranks(two, settings(1))
    for ours, theirs in zip(events(two, "step"), events(alone, "step"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


def test_a_run_may_go_on_with_another_number_of_ranks(runs_dir):
    settings = plain_settings()
    first_half = plain_settings(max_steps=5)
    whole, fewer, more = (begin(runs_dir, settings) for _ in range(3))
    train_alone(whole, settings)
    train_on_two_ranks(fewer, first_half)
    train_alone(fewer, settings, resume=True)
    train_alone(more, first_half)
    train_on_two_ranks(more, settings, resume=True)
    for run in (fewer, more):
        assert_same_series(events(run, "step"), events(whole, "step"))


def test_a_signal_to_one_rank_stops_all_after_the_same_step(runs_dir):
    settings = plain_settings()
    whole, parts = begin(runs_dir, settings), begin(runs_dir, settings)
    train_on_two_ranks(whole, settings)
    seen = train_on_two_ranks(parts, settings, signal_rank_1_at=5)
    assert [rank["exception"] for rank in seen] == ["InterruptedRun", "OtherRankFailed"]
    assert [rank["exit_code"] for rank in seen] == [143, 143]
    assert [rank["steps"][-1]["step"] for rank in seen] == [5, 5]
    assert parts.info().status == "interrupted"
    assert parts.checkpoint().step == 5
    train_on_two_ranks(parts, settings, resume=True)
    ours, theirs = final_tensors(parts), final_tensors(whole)
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def test_what_is_not_finite_on_one_rank_ends_all(runs_dir):
    settings = plain_settings(log_every=3)
    run = begin(runs_dir, settings)
    seen = train_on_two_ranks(run, settings, trouble="1:2:nan")
    assert [rank["exception"] for rank in seen] == ["DivergedError", "OtherRankFailed"]
    assert [rank["exit_code"] for rank in seen] == [4, 4]
    assert "step 2" in seen[0]["message"]
    assert run.info().status == "diverged"
    assert not run.has_checkpoint()


PLAIN = [
    *("digits", "--set", "model.name=several_ranks:plain_net", "--set", "model.exits=3"),
    *("--set", "data.train_per_class=10", "--set", "data.val_per_class=5", "--device", "cpu"),
    *("--set", "training.batch_size=16", "--set", "training.epochs=2"),
    *("--set", "training.log_every=1", "--set", "weights.interval=2"),
]


def environment(**extra):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HDKD_")}
    paths = [str(Path(several_ranks.__file__).parent), str(Path(__file__).parents[2])]
    return {**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), **extra}


def torchrun(runs_dir, *arguments, max_restarts=0, **extra):
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"),
        *("--standalone", f"--max-restarts={max_restarts}", "-m", "hdkd_cli"),
        *("train", *arguments, "--runs-dir", str(runs_dir)),
    ]
    return subprocess.Popen(
        command,
        env=environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def only_run(runs_dir):
    (path,) = runs_dir.iterdir()
    return RunFolder.open(path)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_is_restarted_and_the_run_ends_with_the_same_bits(tmp_path, rank):
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    process = torchrun(quiet, *PLAIN)
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    assert stdout == f"{only_run(quiet).path}\n"

    # 6 steps an epoch, with 3 weight updates of 2 passes each: the 17th pass is in the second epoch
    process = torchrun(killed, *PLAIN, max_restarts=2, TROUBLE=f"{rank}:17:kill")
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    run = only_run(killed)  # the restart found the folder
    assert stdout == f"{run.path}\n"
    log = (run.path / "train.log").read_text()
    assert re.findall(r"^(run|going on after step \d+)\b", log, re.MULTILINE) == [
        "run", "run", "going on after step 6",
    ]  # fmt: skip
    assert [e["step"] for e in events(run, "step")] == list(range(1, 13))
    ours, theirs = final_tensors(run), final_tensors(only_run(quiet))
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def test_a_signal_to_torchrun_saves(tmp_path):
    process = torchrun(tmp_path, *PLAIN, "--set", "training.epochs=5000")
    deadline = time.monotonic() + 120
    while not [f for f in tmp_path.glob("*/metrics.jsonl") if b'"step"' in f.read_bytes()]:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=120)
    assert stdout == ""
    info = only_run(tmp_path).info()
    assert (info.status, info.exit_code, info.ranks) == ("interrupted", 143, 2)
    assert only_run(tmp_path).has_checkpoint()
    assert stderr.count("error: ") == 1
    assert "--resume" in stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "training.batch_size=15"], "training.batch_size = 15"),
        (["--set", "training.epoch=1"], "training.epochs"),
        (["--resume", "nowhere", "--name", "x"], "--resume"),
    ],
)
def test_what_cannot_begin_is_2_and_said_once(tmp_path, arguments, message):
    command = [sys.executable, "-m", "hdkd_cli", "train", *SMALL, *arguments]
    processes = [
        subprocess.Popen(
            [*command, "--runs-dir", str(tmp_path / "runs")],
            env=environment(**rank),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in two_ranks()
    ]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert re.search(message, said[0][1])
    assert "Traceback" not in said[0][1]
    assert said[1] == ("", "")
    assert said[0][0] == ""
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_says_it_once(tmp_path):
    process = torchrun(tmp_path / "runs", *PLAIN, "--dry-run")
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert stdout.count("[training]") == 1
    assert json.dumps("several_ranks:plain_net") in stdout
    assert not (tmp_path / "runs").exists()
