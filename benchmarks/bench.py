"""What ``make bench`` runs: every benchmark that needs no GPU, then one table of claims.

    python benchmarks/bench.py [--only step_cpu ...]

Each script runs in a process of its own with few rounds, all of them together in less than ten
minutes on two quiet cores. They write benchmarks/results; the table and
docs/performance.md are made from that.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from claims import findings, records, table
from performance import rewrite

HERE = Path(__file__).parent
BOUNDED: dict[str, tuple[str, ...]] = {
    "step_public": ("--trials", "3"),
    "step_cpu": ("--trials", "3"),
    "overhead": ("--trials", "3", "--batch", "32"),
    "thresholds": ("--trials", "3"),
    "memory": (),
    "growth": ("--trials", "2"),
    "startup": ("--trials", "2"),
    "verbs": ("--trials", "3"),
    "pipeline": ("--images", "640", "--trials", "2", "--steps", "4"),
}
"""Script → how it is kept short."""


def main() -> None:
    """Run them, print the table, bring docs/performance.md up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=BOUNDED, action="append")
    parser.add_argument("--data-dir", help="CIFAR-100 for startup.py; default: random pictures")
    arguments = parser.parse_args()
    began = time.perf_counter()
    for name in arguments.only or BOUNDED:
        options = [*BOUNDED[name]]
        if name == "startup" and arguments.data_dir:
            options += ["--data-dir", arguments.data_dir]
        print(f"== {name} {' '.join(options)}", flush=True)
        quiet = {**os.environ, "KINETO_LOG_LEVEL": "99"}  # torch's profiler logs to stderr
        command = [sys.executable, str(HERE / f"{name}.py"), *options]
        subprocess.run(command, check=True, env=quiet)
        print(f"({time.perf_counter() - began:.0f} s so far)", flush=True)
    print(f"\n{table(findings(records()))}")
    rewrite()


if __name__ == "__main__":
    main()
