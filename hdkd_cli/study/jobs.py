"""Train what a study lacks: one process and one thread per run, resumable at every moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from hdkd_cli.errors import HdkdError, InterruptedRun
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.settings.keys import leaves
from hdkd_cli.settings.layers import Resolved
from hdkd_cli.settings.toml import to_toml
from hdkd_cli.settings.trust import trusting_environment
from hdkd_cli.study.plan import Cell

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Several processes on one machine are fastest with a thread each."""


@dataclass
class Workers:
    """The processes that train, so that a signal can reach them.

    Attributes:
        runs: Folder of the study's runs.
        logs: Folder of what each run says on stderr.
        flags: ``--data-dir`` and ``--device``, if they were given.
    """

    runs: Path
    logs: Path
    flags: Mapping[str, object]
    _running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _stopped: bool = False

    def make(self, cell: Cell, resolved: Resolved, splits: Sequence[str]) -> None:
        """Train one run to its end, or go on with it, and keep its scores of ``splits``.

        Raises:
            HdkdError: it failed; the message ends with what it said last.
        """
        run = self.runs / cell.name
        trusted = trusting_environment(leaves(resolved.settings).values())
        if not run.exists():
            plan = self.logs / f"{cell.name}.toml"
            plan.write_text(to_toml(resolved.settings), encoding="utf-8")
            self._hdkd(
                cell,
                ["train", str(plan), "--runs-dir", str(self.runs), "--name", cell.name],
                trusted,
            )
        elif RunFolder.open(run).info().status != "finished":
            self._hdkd(cell, ["train", "--resume", str(run), *self._moved()], trusted)
        for split in splits:
            if not (run / "scores" / f"{split}.safetensors").exists():
                arguments = ["eval-anytime", str(run), "--split", split, *self._moved()]
                self._hdkd(cell, arguments, trusted)

    def _moved(self) -> list[str]:
        """The flags, for verbs that read a run."""
        return [part for flag, value in self.flags.items() for part in (flag, str(value))]

    def _hdkd(self, cell: Cell, arguments: Sequence[str], trusted: Mapping[str, str]) -> None:
        """Run one command line of hdkd in a process of its own."""
        log = self.logs / f"{cell.name}.log"
        with log.open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "hdkd_cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env={**os.environ, **ONE_THREAD, **trusted},
                start_new_session=True,  # a Ctrl-C reaches them through `stop`, once
            )
            self._running.add(process)
            if self._stopped:
                process.send_signal(signal.SIGINT)
            code = process.wait()
            self._running.discard(process)
        if code != 0:
            words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise HdkdError(f"{cell.name}: `hdkd {arguments[0]}` ended with exit code {code}; "
                            f"{log} ends with: {words[-1] if words else ''}")  # fmt: skip

    def stop(self) -> None:
        """Let all of them save and end."""
        self._stopped = True
        for process in list(self._running):
            process.send_signal(signal.SIGINT)


def train_all(
    todo: Sequence[Cell],
    make: Callable[[Cell], None],
    workers: Workers,
    *,
    jobs: int,
    waits_for: Callable[[Cell], Cell | None],
    done: Callable[[Cell], bool],
    failed: Callable[[Cell, str], None],
) -> None:
    """Make ``todo`` in its order, ``jobs`` at a time.

    Args:
        todo: The runs; one comes after what it waits for.
        make: Makes one of them, in a thread; raises HdkdError if it fails.
        workers: Their processes.
        jobs: How many at a time.
        waits_for: What has to be there before a run can begin.
        done: Called after each run that was made, here; True ends the study early.
        failed: Told of each run that failed, or whose forerunner failed.

    Raises:
        InterruptedRun: on Ctrl-C. Whatever ends the study, its processes have saved and ended.
    """
    left, broken = list(todo), set[Cell]()
    running: dict[Future[None], Cell] = {}
    with ThreadPoolExecutor(jobs) as pool:
        try:
            enough = False
            while running or (left and not enough):
                for cell in list(left):
                    if enough or len(running) == jobs:
                        break
                    first = waits_for(cell)
                    if first in broken:
                        left.remove(cell)
                        broken.add(cell)
                        failed(cell, f"{cell.name}: {first.name} failed" if first else "")
                    elif first not in running.values() and first not in left:
                        left.remove(cell)
                        running[pool.submit(make, cell)] = cell
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    cell = running.pop(future)
                    try:
                        future.result()
                    except HdkdError as problem:
                        broken.add(cell)
                        failed(cell, str(problem))
                    else:
                        enough |= done(cell)
        except BaseException as end:  # a signal, or a full disk: nothing is left running behind
            workers.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(end, KeyboardInterrupt):
                raise InterruptedRun(
                    "the runs that were being trained are saved; the same command goes on with them"
                ) from None
            raise
