"""Runs are made in order, in parallel where they may be; failures are told and skipped."""

import threading

import pytest

from hdkd_cli.errors import HdkdError, InterruptedRun
from hdkd_cli.study.jobs import train_all
from hdkd_cli.study.plan import Cell

FIRST, SECOND, FOLLOWER, OTHER = (Cell("s", name, 0) for name in ("a", "b", "follower", "c"))


class NoProcesses:
    stopped = False

    def stop(self) -> None:
        self.stopped = True


def run_all(todo, make, *, jobs=1, waits_for=lambda _: None, done=lambda _: False):
    failures: dict[Cell, str] = {}
    workers = NoProcesses()
    train_all(
        todo, make, workers, jobs=jobs, waits_for=waits_for, done=done, failed=failures.__setitem__
    )
    return failures


@pytest.mark.parametrize("jobs", [1, 2, 8])
def test_what_is_followed_is_done_before_its_follower_begins(jobs):
    events: list[tuple[str, str]] = []

    def make(cell: Cell) -> None:
        events.append(("begin", cell.method))
        events.append(("end", cell.method))

    follows = {FOLLOWER: SECOND}
    run_all([FIRST, SECOND, FOLLOWER, OTHER], make, jobs=jobs, waits_for=follows.get)
    assert {name for _, name in events} == {"a", "b", "c", "follower"}
    assert events.index(("end", "b")) < events.index(("begin", "follower"))


def test_as_many_run_at_a_time_as_there_are_jobs():
    both = threading.Barrier(2, timeout=10)  # each waits until the other has begun too
    run_all([FIRST, SECOND], lambda _: both.wait() and None, jobs=2)


def test_a_failure_is_told_and_the_rest_is_made():
    made = []

    def make(cell: Cell) -> None:
        if cell == SECOND:
            raise HdkdError("diverged")
        made.append(cell)

    failures = run_all([FIRST, SECOND, FOLLOWER, OTHER], make, waits_for={FOLLOWER: SECOND}.get)
    assert made == [FIRST, OTHER]
    assert failures == {SECOND: "diverged", FOLLOWER: "s-follower-s0: s-b-s0 failed"}


def test_a_study_that_has_enough_begins_nothing_more():
    made = []
    run_all([FIRST, SECOND, OTHER], made.append, done=lambda cell: cell == SECOND)
    assert made == [FIRST, SECOND]


@pytest.mark.parametrize(
    ("signalled", "seen"), [(KeyboardInterrupt, InterruptedRun), (SystemExit, SystemExit)]
)
def test_whatever_ends_a_study_its_processes_are_stopped(signalled, seen):
    def done(_: Cell) -> bool:
        raise signalled

    workers = NoProcesses()
    with pytest.raises(seen):
        train_all(
            [FIRST], lambda _: None, workers, jobs=1, waits_for=lambda _: None, done=done,
            failed=lambda *_: None,
        )  # fmt: skip
    assert workers.stopped
