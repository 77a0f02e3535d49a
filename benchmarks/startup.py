"""How long ``hdkd train`` takes from the command to the end of its first step.

    python benchmarks/startup.py [--data-dir FOLDER --trials 3]

FOLDER holds CIFAR-100 as ``hdkd`` reads it; without it, a folder of 6,000 random pictures of
CIFAR's size is made. One start that does not count fills the caches (decoded images, byte code).
The end of the step is seen in the run's metrics.jsonl; the process is then ended. Writes
benchmarks/results/startup.json.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from claims import finish
from harness import options, spread
from PIL import Image

from hdkd_cli.runs.metrics import read_metrics

TARGET_SECONDS = 15
POLL_SECONDS = 0.01
PATIENCE_SECONDS = 300


def random_pictures(root: Path, *, classes: int, train: int, test: int, side: int = 32) -> Path:
    """``root/train/<class>/*.png`` and ``root/test/<class>/*.png``."""
    generator = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for c in range(classes):
            folder = root / part / f"class-{c:03}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:04}.png")
    return root


def seconds_to_first_step(command: Sequence[str]) -> float:
    """Wall seconds from starting ``hdkd train`` to the record of its first step.

    Args:
        command: Arguments of ``hdkd train`` but for the runs folder and where to end.
    """
    command = [*command, "--set", "training.max_steps=1"]
    with tempfile.TemporaryDirectory() as runs, tempfile.TemporaryFile() as talk:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "hdkd_cli", "train", *command, "--runs-dir", runs],
            stdout=subprocess.DEVNULL,
            stderr=talk,
        )
        try:
            while (seconds := time.perf_counter() - began) < PATIENCE_SECONDS:
                if any(map(_has_a_step, Path(runs).glob("*/metrics.jsonl"))):
                    return seconds
                if process.poll():  # failed
                    break
                time.sleep(POLL_SECONDS)
        finally:
            process.kill()  # the runs folder goes with it
            process.wait()
        talk.seek(0)
        raise SystemExit(f"no step was taken:\n{talk.read().decode()}")


def _has_a_step(metrics: Path) -> bool:
    return any(record["event"] == "step" for record in read_metrics(metrics))


def measure(command: Sequence[str], trials: int) -> list[float]:
    """Seconds of each start after the one that fills the caches."""
    return [seconds_to_first_step(command) for _ in range(1 + trials)][1:]


def main() -> None:
    """Measure, write the record, print what it says."""
    given = options(__doc__, data_dir=Path, preset="cifar100-small", trials=3)
    with tempfile.TemporaryDirectory() as made:
        command = [given.preset, "--device", "cpu", "--data-dir"]
        if given.data_dir is not None:
            images = "CIFAR-100, 60,000 images"
            command.append(str(given.data_dir))
        else:
            images = "6,000 random pictures of CIFAR's size, 100 classes"
            random_pictures(Path(made), classes=100, train=50, test=10)
            command += [made, "--set", "data.val_per_class=10"]
        seconds = measure(command, given.trials)
    finish(
        "startup",
        "wall seconds from the command to the end of the first step, cache warm",
        device="cpu",
        preset=given.preset,
        images=images,
        trials=given.trials,
        target_seconds=TARGET_SECONDS,
        seconds=spread(seconds),
        each=seconds,
    )


if __name__ == "__main__":
    main()
