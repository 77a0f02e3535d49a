"""What verbs that only read scores take: processor seconds and memory, starting Python included.

    python benchmarks/verbs.py [--trials 5]

On made-up scores of 5 exits, 10,000 images and 100 classes. Writes benchmarks/results/verbs.json.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from claims import finish
from harness import options, spread
from thresholds import synthetic

from hdkd_cli.evaluation.scores import write_scores

TARGET_SECONDS, TARGET_MB = 1.0, 200
SAMPLES = 10_000
VERBS = {
    "eval-anytime": (),
    "calibrate-thresholds": ("-o", "{policy}"),
    "eval-budget": ("--policy", "{policy}"),
    "compare": ("--scores", "{scores}"),
}


# Between this process and the verb: one that starts out of a large process counts as large as that.
WATCHED = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "hdkd_cli", *sys.argv[1:]], check=True, stdout=-3)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
"""


def run(arguments: Sequence[str]) -> tuple[float, float]:
    """Processor seconds and peak megabytes of a verb.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, "-c", WATCHED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"hdkd {' '.join(arguments)} failed:\n{done.stderr}")
    seconds, most = map(float, done.stdout.split())
    return seconds, most / 2**10 / (2**10 if sys.platform == "darwin" else 1)


def measure(folder: Path, samples: int, trials: int) -> list[dict[str, object]]:
    """A row for each verb."""
    paths = {"scores": str(folder / "scores.safetensors"), "policy": str(folder / "policy.json")}
    write_scores(Path(paths["scores"]), synthetic(5, samples, 100))
    rows = []
    for verb, more in VERBS.items():
        command = [verb, "--scores", paths["scores"], *(one.format_map(paths) for one in more)]
        run(command)  # fills the caches
        seconds, megabytes = zip(*(run(command) for _ in range(trials)), strict=True)
        rows.append(
            {
                "verb": verb,
                "seconds": spread(seconds),
                "megabytes": spread(megabytes),
                "target_seconds": TARGET_SECONDS,
                "target_megabytes": TARGET_MB,
            }
        )
    return rows


def main() -> None:
    """Measure, write the record, print what it says."""
    given = options(__doc__, trials=5, threads=1)
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), SAMPLES, given.trials)
    finish(
        "verbs",
        "processor seconds and peak memory of verbs that read scores, starting Python included",
        samples=SAMPLES,
        trials=given.trials,
        rows=rows,
    )


if __name__ == "__main__":
    main()
