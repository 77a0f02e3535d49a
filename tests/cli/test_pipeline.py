"""The program as shells use it: pipes, signals, exit codes. Each test starts processes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import SMALL

from hdkd_cli.files import sha256_file
from hdkd_cli.runs.metrics import read_metrics

pytestmark = pytest.mark.slow
HDKD = [sys.executable, "-m", "hdkd_cli"]
QUICK = {**os.environ, "OMP_NUM_THREADS": "1"}


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    script = f'hdkd() {{ "{sys.executable}" -m hdkd_cli "$@"; }}; set -o pipefail; {command}'
    return subprocess.run(
        ["bash", "-c", script], cwd=cwd, env=QUICK, capture_output=True, text=True, check=False
    )


def test_train_pipes_into_evaluation(tmp_path):
    small = " ".join(SMALL)
    done = shell(f"hdkd train {small} | hdkd eval-anytime -", tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    run = record["run"]
    done = shell(f"hdkd calibrate {run} | hdkd eval-budget {run} --policy -", tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["points"]) == 39
    done = shell(f"hdkd calibrate {run} --format jsonl | head -n 1", tmp_path)
    assert json.loads(done.stdout)["val_macs"] > 0
    assert "Traceback" not in done.stderr


def test_a_failed_train_fails_the_pipe(tmp_path):
    done = shell("hdkd train digits --set nosuch.key=1 | hdkd eval-anytime -", tmp_path)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "nosuch" in done.stderr
    assert "stdin" in done.stderr


def fingerprints(run: Path) -> dict[str, str]:
    last = run / "checkpoints" / "last"
    return {p.name: sha256_file(p) for p in last.iterdir() if p.suffix == ".safetensors"}


def train(arguments: list[str], cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*HDKD, "train", *arguments], cwd=cwd, env=QUICK, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_at_random_moments(tmp_path, signum, code):
    arguments = [*SMALL, "--set", "training.max_steps=200", "--set", "training.epochs=40"]
    whole = train([*arguments, "--name", "whole"], tmp_path)
    whole.communicate()
    assert whole.returncode == 0

    dice = random.Random(int(signum))
    process = train([*arguments, "--name", "parts"], tmp_path)
    run = tmp_path / "runs" / "parts"
    ends = []
    for _ in range(12):
        log = run / "metrics.jsonl"
        while process.poll() is None and not log.exists():
            time.sleep(0.05)
        time.sleep(dice.uniform(0.3, 2.5))
        process.send_signal(signum)
        out, err = process.communicate(timeout=60)
        ends.append(process.returncode)
        if process.returncode == 0:
            break
        # before the first step there is nothing to save, and Python's own way out is as good
        assert process.returncode in {code, -signum}, err
        assert out == ""
        process = train(["--resume", str(run)], tmp_path)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert code in ends
    assert fingerprints(run) == fingerprints(tmp_path / "runs" / "whole")
    steps = [r["step"] for r in read_metrics(run / "metrics.jsonl") if r["event"] == "step"]
    assert steps == sorted(set(steps))
