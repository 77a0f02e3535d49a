"""Train a preset in stretches of a few minutes, and evaluate it when it is done.

    python benchmarks/cifar100.py --data-dir D --run-dir R --minutes M [--preset P] [--set K=V ...]

Call it until it says that the run is finished. Each call starts the run R or goes on with it, lets
``hdkd train`` stop cleanly after M minutes, and prints how far it is. The wall time of all
stretches is kept in R.stretches.json. Stretches end with the same bits as one run. At the end it
writes benchmarks/results/cifar100-<name>.json: every exit, and the 39 operating points, for exits
alone and for exits averaged by cost.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import RESULTS, write_record

from hdkd_cli.evaluation.anytime import anytime
from hdkd_cli.evaluation.calibration import calibrate_geometric
from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.evaluation.simulate import budget
from hdkd_cli.files import write_json
from hdkd_cli.library.run import Run
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.runs.metrics import read_metrics
from hdkd_cli.settings.toml import to_toml

COMBINATIONS = ("single", "cost-weighted")


def stretches_file(run_dir: Path) -> Path:
    """Where the wall time of a run's stretches is kept: beside it."""
    return run_dir.with_name(f"{run_dir.name}.stretches.json")


def stretches_of(run_dir: Path) -> list[dict[str, Any]]:
    """The stretches so far."""
    path = stretches_file(run_dir)
    return list(json.loads(path.read_text())["stretches"]) if path.exists() else []


def train_stretch(run_dir: Path, preset: str, options: Sequence[str], minutes: float) -> int:
    """Start the run or go on with it for at most ``minutes``; returns the steps that are saved.

    Args:
        run_dir: The run's folder, made if absent.
        preset: What to train.
        options: Further options of ``hdkd train``. They must be the same in each stretch: what a
            resume cannot change is refused.
        minutes: When to ask for the end. The step is finished and everything saved then, which
            comes on top.
    """
    which = [preset, "--runs-dir", str(run_dir.parent), "--name", run_dir.name]
    if (run_dir / "settings.toml").is_file():
        made_of = RunFolder.open(run_dir).info()["preset"]
        if made_of != Path(preset).stem:
            raise SystemExit(f"{run_dir}: is a run of {made_of}, not of {preset}")
        which = ["--resume", str(run_dir)]
    before = saved_step(run_dir)
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "hdkd_cli", "train", *which, *options],
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C comes here alone: a second signal would end it unsaved
    )
    try:
        exit_code = process.wait(minutes * 60)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.send_signal(signal.SIGTERM)
        exit_code = process.wait()
    done = saved_step(run_dir)
    stretch = {
        "seconds": time.perf_counter() - began,
        "steps": done - before,
        "exit_code": exit_code,
    }
    if run_dir.is_dir():
        write_json(stretches_file(run_dir), {"stretches": [*stretches_of(run_dir), stretch]})
    # stopped after saving; or before there was anything to save
    if exit_code not in (0, 128 + signal.SIGTERM, -signal.SIGTERM):
        raise SystemExit(exit_code)
    return done


def is_finished(run_dir: Path) -> bool:
    """Whether the run is there and trained to its end."""
    made = (run_dir / "settings.toml").is_file()
    return made and RunFolder.open(run_dir).info()["status"] == "finished"


def saved_step(run_dir: Path) -> int:
    """Steps in the run's last checkpoint; 0 if there is none."""
    if not (run_dir / "settings.toml").is_file():
        return 0
    run = RunFolder.open(run_dir)
    return run.checkpoint().step if run.has_checkpoint() else 0


def progress(run_dir: Path) -> dict[str, Any]:
    """How far the run is and what it takes, from its log and the stretches so far.

    ``seconds`` are those of the processes from start to end: start-up, validation and checkpoints
    are in it, and so in what is extrapolated.
    """
    done = saved_step(run_dir)
    if done == 0:
        raise SystemExit(f"{run_dir}: not one step was saved yet; give it more --minutes")
    log = read_metrics(run_dir / "metrics.jsonl")
    started = next(record for record in log if record["event"] == "run_started")
    seconds = sum(stretch["seconds"] for stretch in stretches_of(run_dir))
    per_epoch, total = started["steps_per_epoch"], started["total_steps"]
    return {
        "step": done,
        "steps": total,
        "epochs_done": done / per_epoch,
        "epochs": total / per_epoch,
        "stretches": len(stretches_of(run_dir)),
        "seconds": seconds,
        "seconds_per_epoch": seconds * per_epoch / done,
        "expected_seconds": seconds * total / done,
    }


def evaluate(run_dir: Path, data_dir: Path) -> dict[str, Any]:
    """Both evaluations of the finished run under each combination; thresholds come from val."""
    run = RunFolder.open(run_dir)
    opened = Run(folder=run, data_dir=data_dir, note=print)
    val, test = opened.scores("val"), opened.scores("test")
    results = {}
    for kind in COMBINATIONS:
        policy = calibrate_geometric(
            val, combination=kind, confidence="max-prob", temperature=False, budgets_macs=()
        )
        results[kind] = {
            "anytime": anytime(
                test,
                fixed_combination(kind, test.macs_K),
                (1.0,) * test.num_exits,
                ece_bins=run.settings().evaluation.ece_bins,
                run=run_dir.name,
            ).as_record(),
            "budget": budget(policy, test, run=run_dir.name).as_record(),
        }
    return results


def record_of(run_dir: Path, data_dir: Path, name: str) -> Path:
    """Evaluate the finished run and write its record."""
    run = RunFolder.open(run_dir)
    info = run.info()
    return write_record(
        f"cifar100-{name}",
        "a preset trained in stretches, on the test split",
        preset=info["preset"],
        device=info["device"],
        versions=info["versions"],
        git_revision=info["git_revision"],
        settings=_settings_text(run),
        training=progress(run_dir) | {"each": stretches_of(run_dir)},
        results=evaluate(run_dir, data_dir),
    )


def _settings_text(run: RunFolder) -> str:
    """The run's settings, but for the folder the images were in."""
    settings = run.settings()
    data = settings.data.model_copy(update={"root": None})
    return to_toml(settings.model_copy(update={"data": data}))


def main() -> None:
    """Train a stretch; when the run is finished, evaluate it and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--preset", default="cifar100-small")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device")
    parser.add_argument("--name", help="of the record; default: the run's")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: it is passed on
    run_dir = arguments.run_dir.absolute()
    options = ["--data-dir", str(arguments.data_dir)]
    options += [word for assignment in arguments.set for word in ("--set", assignment)]
    options += ["--device", arguments.device] if arguments.device else []
    if not is_finished(run_dir):
        train_stretch(run_dir, arguments.preset, options, arguments.minutes)
    now = progress(run_dir)
    print(
        f"step {now['step']} of {now['steps']}, epoch {now['epochs_done']:.2f} of "
        f"{now['epochs']:.2f}; {now['seconds']:.0f} s in {now['stretches']} stretches, "
        f"{now['seconds_per_epoch']:.1f} s an epoch, {now['expected_seconds'] / 60:.0f} min in all"
    )
    if now["step"] < now["steps"]:
        print("not finished: call it again")
        return
    name = arguments.name or run_dir.name.removeprefix("cifar100-")
    path = record_of(run_dir, arguments.data_dir, name)
    rows = json.loads(path.read_text())["results"]
    for kind in COMBINATIONS:
        top1 = " ".join(f"{row['top1_pct']:.2f}" for row in rows[kind]["anytime"]["exits"])
        best = max(point["top1_pct"] for point in rows[kind]["budget"]["points"])
        print(f"{kind}: top-1 % of the exits {top1}; best operating point {best:.2f}")
    print(f"written: {path.relative_to(RESULTS.parent)}")


if __name__ == "__main__":
    main()
