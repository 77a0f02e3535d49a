"""What verbs read: a run by path or from stdin, its scores or a score file, its policy."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hdkd_cli.choices import Role
from hdkd_cli.errors import PolicyError, RunError, UsageError
from hdkd_cli.ui.console import talk

if TYPE_CHECKING:
    from hdkd_cli.evaluation.policy import ExitPolicy, OperatingPoint
    from hdkd_cli.evaluation.scores import Scores
    from hdkd_cli.runs.folder import RunFolder


def open_run(name: str) -> RunFolder:
    """The run at a path; ``-`` reads the path from the first line of stdin.

    Raises:
        RunError: there is no such run, or nothing on stdin.
    """
    from hdkd_cli.reading import MAX_BYTES
    from hdkd_cli.runs.folder import RunFolder

    if name != "-":
        return RunFolder.open(Path(name))
    line = sys.stdin.readline(MAX_BYTES).strip()
    if not line:
        raise RunError("no run folder on stdin", hint="did the command before it fail?")
    return RunFolder.open(Path(line))


@dataclass(frozen=True)
class Source:
    """Where the scores of an evaluation come from.

    Attributes:
        scores: The scores.
        run: The run they belong to; None for a bare score file.
        name: What a record calls it.
    """

    scores: Scores
    run: RunFolder | None
    name: str


def read_source(
    run: str | None,
    scores: Path | None,
    split: str | None,
    default_split: Role,
    *,
    data_dir: Path | None,
    device: str | None,
    batch_size: int | None,
) -> Source:
    """Scores of a run's split, collected now if need be, or those of a file.

    Raises:
        UsageError: neither or both are given, or a split that the file is not of.
    """
    if (run is None) == (scores is None):
        raise UsageError("give either RUN or --scores FILE")
    if scores is not None:
        from hdkd_cli.evaluation.compatibility import check_scores
        from hdkd_cli.evaluation.scores import read_scores

        found = read_scores(scores)
        for warning in check_scores(found, {} if split is None else {"split": split}):
            talk.warning(f"{scores}: {warning}")
        return Source(found, None, str(scores))

    assert run is not None
    opened = open_run(run)
    role = cast("Role", split or default_split)
    return Source(
        scores_of(opened, role, data_dir=data_dir, device=device, batch_size=batch_size),
        opened,
        str(opened.path),
    )


def read_calibration(
    source: Source,
    scores: Path | None,
    *,
    data_dir: Path | None,
    device: str | None,
    batch_size: int | None,
) -> Scores:
    """Scores that bear a guarantee: of the run's calibration split, or those of a file.

    Args:
        source: Where the thresholds come from.
        scores: The file, if the source is one too.

    Raises:
        UsageError: the file is missing, or given beside a run; the run set no images aside.
        SettingsError: the samples were used for something else.
    """
    from hdkd_cli.evaluation.compatibility import check_calibration
    from hdkd_cli.evaluation.scores import read_scores

    if source.run is None:
        if scores is None:
            raise UsageError(
                "a guarantee needs samples that trained nothing: give --calibration-scores FILE"
            )
        found = read_scores(scores)
    elif scores is not None:
        raise UsageError("--calibration-scores goes with --scores; a run has its own split")
    elif source.run.settings().data.calibration_fraction == 0:
        raise UsageError(
            f"{source.name}: has no calibration split, and its val split trained the loss weights; "
            "train with --set data.calibration_fraction=0.5, say"
        )
    else:
        found = scores_of(
            source.run, "calibration", data_dir=data_dir, device=device, batch_size=batch_size
        )
    for warning in check_calibration(source.scores, found):
        talk.warning(warning)
    return found


def scores_of(
    run: RunFolder,
    split: Role,
    *,
    data_dir: Path | None,
    device: str | None,
    batch_size: int | None,
) -> Scores:
    """Scores of a run's split: its own, or collected now."""
    from hdkd_cli.devices import resolve_device
    from hdkd_cli.evaluation.of_run import scores_of_run

    return scores_of_run(
        run,
        split,
        device=resolve_device(device or "auto"),
        data_root=None if data_dir is None else str(data_dir),
        batch_size=batch_size,
        note=talk.note,
    )


def read_policy_option(policy: str | None, run: RunFolder | None) -> ExitPolicy:
    """The policy a verb was given: a name in the run, a file, ``-``, or the last one calibrated.

    Raises:
        UsageError: none is given and none was calibrated.
        PolicyError: it is missing or unusable.
    """
    from hdkd_cli.evaluation.policy import parse_policy, read_policy
    from hdkd_cli.reading import MAX_BYTES

    if policy == "-":
        return parse_policy(sys.stdin.read(MAX_BYTES), "standard input")
    if policy is None:
        if run is None:
            raise UsageError("--scores needs --policy FILE: there is no run to take a policy from")
        if not (run.policies / "last").exists():
            raise UsageError(
                f"{run.path}: no policy was calibrated yet",
                hint=f"run `hdkd calibrate-thresholds {run.path}`",
                subject=run.path,
            )
        return read_policy((run.policies / "last").resolve())
    named = run.policies / f"{policy}.json" if run is not None else None
    if named is not None and named.exists():
        return read_policy(named)
    if not Path(policy).exists():
        known = sorted(p.stem for p in run.policies.glob("*.json")) if run is not None else []
        raise PolicyError(
            f"--policy {policy}: no such file or policy of the run",
            hint=f"this run has: {', '.join(known)}" if known else None,
            subject=policy,
        )
    return read_policy(Path(policy))


def one_point(
    policy: ExitPolicy,
    run: RunFolder | None,
    budget: str | None,
    *,
    full_macs: int,
    data_dir: Path | None = None,
    device: str | None = None,
    batch_size: int | None = None,
) -> tuple[ExitPolicy, OperatingPoint]:
    """The one operating point of a policy that a verb works with, and the policy with it alone.

    With a budget, ``geometric`` is solved for it on the run's val scores (a point calibrated for
    just this budget is that solution), and others give their best point within it. Without one:
    the highest validation accuracy, the cheaper on ties.

    Args:
        policy: The family.
        run: Where val scores come from.
        budget: As the command line has it.
        full_macs: Cost of the last exit.
        data_dir: Where the run's images are, should they be needed.
        device: Where val scores are collected, should they be needed.
        batch_size: Images a forward pass then.

    Raises:
        UsageError: the budget is none, or cannot be met.
    """
    from hdkd_cli.evaluation.budget import parse_budget
    from hdkd_cli.evaluation.operating_point import geometric_point

    macs = None if budget is None else parse_budget(budget, full_macs)
    if policy.kind != "geometric" or macs is None or run is None:
        point = policy.select(macs)
    elif made_for_it := [p for p in policy.points if p.target_macs == macs]:
        point = made_for_it[0]
    else:
        scores = scores_of(run, "val", data_dir=data_dir, device=device, batch_size=batch_size)
        point = geometric_point(policy, scores, macs)
    return policy.model_copy(update={"points": (point,)}), point
