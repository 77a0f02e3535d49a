"""Nothing is lost: a run that is killed again and again ends with the bits of one left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import SMALL
from test_pipeline import HDKD, QUICK, fingerprints

from hdkd_cli.runs.checkpoints import complete_checkpoints
from hdkd_cli.runs.metrics import read_metrics

pytestmark = pytest.mark.slow
# 6 steps and a checkpoint an epoch: a fifth of the time goes into writing checkpoints
LONG = [*SMALL, "--set", "training.epochs=60", "--set", "training.max_steps=300"]
KILLS = 20


def start(arguments: list[str], cwd: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*HDKD, "-q", "train", *arguments], cwd=cwd, env=QUICK, stdout=subprocess.DEVNULL
    )


def finish(arguments: list[str], cwd: Path) -> None:
    assert start(arguments, cwd).wait() == 0


def logged_steps(run: Path) -> list[int]:
    return [r["step"] for r in read_metrics(run / "metrics.jsonl") if r["event"] == "step"]


def test_killed_at_random_moments(tmp_path):
    finish([*LONG, "--name", "whole"], tmp_path)
    whole, run = tmp_path / "runs" / "whole", tmp_path / "runs" / "parts"
    dice = random.Random(0)
    process, kills = start([*LONG, "--name", "parts"], tmp_path), 0
    while kills < KILLS:
        log = run / "metrics.jsonl"
        size = log.stat().st_size if log.exists() else 0
        while process.poll() is None and (not log.exists() or log.stat().st_size == size):
            time.sleep(0.01)  # until it trains
        time.sleep(dice.uniform(0, 0.8))
        if process.poll() is not None:  # it got to its end: nothing more to kill
            break
        process.kill()
        process.wait()
        kills += 1
        process = start(["--resume", str(run)], tmp_path)
    assert process.wait() == 0
    assert kills >= KILLS // 2
    assert fingerprints(run) == fingerprints(whole)
    assert logged_steps(run) == logged_steps(whole)


KILL_WHILE_WRITING = """
import os, signal, sys
from hdkd_cli import app, files
import hdkd_cli.runs.checkpoints as checkpoints

left = int(sys.argv[1])
def counted(write):
    def counting(path, *rest):
        global left
        if "step-12" in str(path):
            left -= 1
            if left < 0:
                path.write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
        return write(path, *rest)
    return counting

for name in ("write_tensors", "write_json", "point_link"):
    setattr(checkpoints, name, counted(getattr(checkpoints, name)))
sys.exit(app.run(sys.argv[2:]))
"""


@pytest.mark.parametrize("written", range(5))
def test_killed_while_a_checkpoint_is_being_written(tmp_path, written):
    short = [*SMALL, "--set", "training.epochs=3", "--set", "training.max_steps=18"]
    finish([*short, "--name", "whole"], tmp_path)
    run = tmp_path / "runs" / "parts"
    arguments = [str(written), "-q", "train", *short, "--name", "parts"]
    died = subprocess.run(
        [sys.executable, "-c", KILL_WHILE_WRITING, *arguments], cwd=tmp_path, env=QUICK, check=False
    )
    assert died.returncode == -signal.SIGKILL
    assert [c.step for c in complete_checkpoints(run / "checkpoints")] == [6]
    assert any(p.name.startswith(".step-12") for p in (run / "checkpoints").iterdir())
    finish(["--resume", str(run)], tmp_path)
    assert not any(p.name.startswith(".step") for p in (run / "checkpoints").iterdir())
    assert fingerprints(run) == fingerprints(tmp_path / "runs" / "whole")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", disk]).returncode:
        pytest.skip("no mounting in this container")
    try:
        keep = [*LONG, "--set", "training.keep_checkpoints=50", "--runs-dir", str(disk)]
        process = subprocess.run(
            [*HDKD, "train", *keep, "--name", "r"], cwd=tmp_path, env=QUICK,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert process.returncode == 3
        assert "No space left" in process.stderr
        assert "Traceback" not in process.stderr
        complete = complete_checkpoints(disk / "r" / "checkpoints")
        assert complete
        assert all(c.is_whole() for c in complete)
    finally:
        subprocess.run(["umount", disk], check=True)
