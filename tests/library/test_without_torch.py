"""Verbs that only read scores load no torch: they start at once, and need little memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from picture_runs import Pictures

from hdkd_cli.evaluation.scores import Scores, write_scores
from hdkd_cli.library.run import Run

TOLD = """
import json, sys
from hdkd_cli import app
codes = [app.run(command) for command in json.loads(sys.argv[1])]
print(json.dumps([codes, sorted({"torch", "torchvision"} & sys.modules.keys())]))
"""


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    logits_KNC = random.standard_normal((3, 200, 5), np.float32)
    path = tmp_path_factory.mktemp("scores") / "val.safetensors"
    write_scores(path, Scores(logits_KNC, random.integers(0, 5, 200), (10, 20, 30)))
    return path


def told(*commands: tuple[str | Path, ...]) -> tuple[list[int], list[str]]:
    """Exit codes of commands that one process runs, and what of torch it has loaded then."""
    given = json.dumps(commands, default=str)
    done = subprocess.run(
        [sys.executable, "-c", TOLD, given], capture_output=True, text=True, check=True
    )
    codes, loaded = json.loads(done.stdout.splitlines()[-1])
    return codes, loaded


def test_score_files(scores: Path, tmp_path: Path) -> None:
    given, policy = ("--scores", scores), tmp_path / "policy.json"
    assert told(
        ("calibrate", *given, "-o", policy, "--policy", "optimal", "--combination", "fitted"),
        ("eval-budget", *given, "--policy", policy),
        ("eval-anytime", *given, "--per-class"),
        ("compare", *given, *given),
    ) == ([0] * 4, [])


def test_runs_whose_scores_are_kept(pictures: Pictures) -> None:
    run = Run.open(pictures.run, device="cpu")
    for split in ("val", "test"):
        run.scores(split)
    verbs = [(verb, pictures.run) for verb in ("calibrate", "eval-budget", "eval-anytime")]
    assert told(*verbs) == ([0] * 3, [])
