"""What verbs read: a run by path or from stdin, or a score file; a policy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from hdkd_cli.errors import RunError, UsageError
from hdkd_cli.ui.console import talk

if TYPE_CHECKING:
    from hdkd_cli.choices import RuntimeKind
    from hdkd_cli.evaluation.policy import ExitPolicy
    from hdkd_cli.library.evaluated import Evaluated
    from hdkd_cli.library.kept import KeptRun
    from hdkd_cli.library.run import Run
    from hdkd_cli.library.score_file import ScoreFile


class Where(TypedDict, total=False):
    """Where a run's images are, and what its network runs on: attributes of `Run`."""

    data_dir: Path | None
    device: str | None
    batch_size: int | None


def open_run(
    name: str,
    *,
    allow_mismatch: bool = False,
    runtime: RuntimeKind = "auto",
    **where: Unpack[Where],
) -> Run:
    """The run at a path; ``-`` reads the path from the first line of stdin.

    Raises:
        RunError: there is no such run, or nothing on stdin.
    """
    from hdkd_cli.library.run import Run

    return Run.open(
        _path(name),
        allow_mismatch=allow_mismatch,
        runtime=runtime,
        note=talk.note,
        warn=talk.warning,
        **where,
    )


def kept_run(name: str, *, allow_mismatch: bool = False, **where: Unpack[Where]) -> KeptRun:
    """The same for verbs that read scores: the network is opened, and torch, if none are kept.

    Raises:
        RunError: there is no such run, or nothing on stdin.
    """
    from hdkd_cli.library.kept import KeptRun

    return KeptRun.open(
        _path(name), allow_mismatch=allow_mismatch, note=talk.note, warn=talk.warning, **where
    )


def _path(name: str) -> str:
    """A run's path; ``-``: the first line of stdin."""
    if name != "-":
        return name
    from hdkd_cli.reading import MAX_BYTES

    name = sys.stdin.readline(MAX_BYTES).strip()
    if not name:
        raise RunError("no run folder on stdin", hint="did the command before it fail?")
    return name


def score_source(
    run: str | None,
    scores: Path | None,
    *,
    allow_mismatch: bool = False,
    **where: Unpack[Where],
) -> Evaluated:
    """Where the scores of an evaluation come from: a run, or a file.

    Raises:
        UsageError: neither or both are given.
    """
    if (run is None) == (scores is None):
        raise UsageError("give either RUN or --scores FILE")
    if run is not None:
        return kept_run(run, allow_mismatch=allow_mismatch, **where)
    assert scores is not None
    return score_file(scores, allow_mismatch=allow_mismatch)


def score_file(path: Path, *, allow_mismatch: bool = False) -> ScoreFile:
    """A file of scores without a run."""
    from hdkd_cli.library.score_file import ScoreFile

    return ScoreFile(path=path, allow_mismatch=allow_mismatch, note=talk.note, warn=talk.warning)


def policy_option(policy: str | None) -> ExitPolicy | str | None:
    """What --policy says: a name or a file as it is, ``-`` read from stdin.

    Raises:
        PolicyError: stdin holds no policy.
    """
    if policy != "-":
        return policy
    from hdkd_cli.evaluation.policy import parse_policy
    from hdkd_cli.reading import MAX_BYTES

    return parse_policy(sys.stdin.read(MAX_BYTES), "standard input")
