"""Verbs that only read scores load no torch: they start at once, and need little memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from picture_runs import Pictures

from hdkd_cli.evaluation.scores import Scores, write_scores
from hdkd_cli.library.run import Run

TOLD = "import sys; from hdkd_cli import app; code = app.run(sys.argv[1:]); \
print(code, *sorted({'torch', 'torchvision'} & sys.modules.keys()))"


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    logits_KNC = random.standard_normal((3, 200, 5), np.float32)
    path = tmp_path_factory.mktemp("scores") / "val.safetensors"
    write_scores(path, Scores(logits_KNC, random.integers(0, 5, 200), (10, 20, 30)))
    return path


def last_line(*arguments: str | Path) -> str:
    command = [sys.executable, "-c", TOLD, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_score_files(scores: Path, tmp_path: Path) -> None:
    given, policy = ("--scores", scores), tmp_path / "policy.json"
    for verb in (
        ("calibrate", *given, "-o", policy, "--policy", "optimal", "--combination", "fitted"),
        ("eval-budget", *given, "--policy", policy),
        ("eval-anytime", *given, "--per-class"),
        ("compare", *given, *given),
    ):
        assert last_line(*verb) == "0", verb


def test_runs_whose_scores_are_kept(pictures: Pictures) -> None:
    run = Run.open(pictures.run, device="cpu")
    for split in ("val", "test"):
        run.scores(split)
    for verb in ("calibrate", "eval-budget", "eval-anytime"):
        assert last_line(verb, pictures.run) == "0", verb
    (pictures.run / "scores" / "test.safetensors").unlink()
    assert last_line("eval-anytime", pictures.run) == "0 torch"
