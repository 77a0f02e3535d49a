"""Times things that are to be compared in turn, so that what else the machine does hits them alike.

A benchmark that imports this runs as ``python benchmarks/<name>.py``: this folder is then the first
on Python's path.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from hdkd_cli.files import write_json
from hdkd_cli.inference.timing import seconds_of

RESULTS = Path(__file__).parent / "results"


CPU = torch.device("cpu")


def options(doc: str, **defaults: Any) -> argparse.Namespace:
    """The command line of a script: an option for each default, of its type.

    A tuple or mapping is a choice of several, by default all of them; a list takes any values;
    ``threads`` are set here.
    """
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    for name, default in defaults.items():
        kind: dict[str, Any] = {"type": type(default), "default": default}
        if isinstance(default, bool):
            kind = {"action": "store_true"}
        elif isinstance(default, list):
            kind = {"type": type(default[0]), "nargs": "+", "default": default}
        elif isinstance(default, tuple | Mapping):
            kind = {"choices": default, "nargs": "+", "default": list(default)}
        elif isinstance(default, type):
            kind = {"type": default}
        parser.add_argument(f"--{name.replace('_', '-')}", **kind)
    given = parser.parse_args()
    if "threads" in given:
        torch.set_num_threads(given.threads)
    return given


def in_turn(
    arms: Mapping[str, Callable[[], object]],
    *,
    trials: int,
    warmup: int = 2,
    calls: int = 1,
    device: torch.device = CPU,
) -> dict[str, list[float]]:
    """Wall seconds of each trial: A B C, A B C, … after ``warmup`` trials that do not count.

    A trial is ``calls`` such rounds, summed; each call waits for what it gave ``device`` to do.
    """
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for trial in range(warmup + trials):
        spent = dict.fromkeys(arms, 0.0)
        for _ in range(calls):
            for name, arm in arms.items():
                spent[name] += seconds_of(arm, device)
        if trial >= warmup:
            for name in arms:
                seconds[name].append(spent[name])
    return seconds


def in_own_process(
    build: Callable[..., Callable[[], object]], *arguments: object
) -> tuple[Callable[[], None], float]:
    """What ``build(*arguments)`` returns, but living and called in a process of its own.

    For arms that differ in what belongs to a process, such as its memory allocator. While one
    runs, the others wait. Returns it, and the seconds it took to build.
    """
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    spawn.Process(target=_serve, args=(there, build, arguments), daemon=True).start()

    began = time.perf_counter()
    here.recv()

    def call() -> None:
        here.send(True)
        here.recv()

    return call, time.perf_counter() - began


def _serve(pipe: Connection, build: Callable[..., Callable], arguments: Sequence[object]) -> None:
    arm = build(*arguments)
    pipe.send(True)
    with suppress(EOFError):  # the parent has gone
        while pipe.recv():
            arm()
            pipe.send(True)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(slower: Sequence[float], faster: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of slower/faster over the rounds; each round is a pair."""
    return spread([a / b for a, b in zip(slower, faster, strict=True)])


def show(values: Mapping[str, float], digits: int = 2) -> str:
    """``median (min to max)``."""
    median, low, high = (f"{values[key]:.{digits}f}" for key in ("median", "min", "max"))
    return f"{median} ({low} to {high})"


def write_record(name: str, what: str, **facts: object) -> Path:
    """Write ``results/<name>.json`` with the facts and what they were measured on."""
    path = RESULTS / f"{name}.json"
    record = {"schema": "hdkd/benchmark/1", "what": what} | facts | {"machine": _machine()}
    write_json(path, json.loads(json.dumps(record)))
    return path


def _machine() -> dict[str, object]:
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "load": os.getloadavg()[0],  # of the last minute: other processes included
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    """The processor's name where the system tells it."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
