"""What may be handed in as it is, by name or as a file: a policy, a profile. K exits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hdkd_cli.errors import PolicyError, UsageError
from hdkd_cli.evaluation.policy import ExitPolicy, read_policy
from hdkd_cli.evaluation.times import ExitTimes, read_profile, times_of
from hdkd_cli.records.profile import Profile
from hdkd_cli.runs.folder import RunFolder


def given_policy(policy: ExitPolicy | str | Path, known: Sequence[str] = ()) -> ExitPolicy:
    """A policy as it is, or that of a file.

    Args:
        policy: Which.
        known: Names that would have been understood, for the message.

    Raises:
        PolicyError: it is missing or unusable.
    """
    if isinstance(policy, ExitPolicy):
        return policy
    if not Path(policy).exists():
        raise PolicyError(
            f"--policy {policy}: no such file or policy of the run",
            hint=f"this run has: {', '.join(known)}" if known else None,
            subject=policy,
        )
    return read_policy(Path(policy))


def given_times(
    profile: Path | Profile | None,
    run: RunFolder | None,
    macs_K: Sequence[int],
    *,
    batched: bool,
) -> ExitTimes:
    """What exits cost in seconds.

    Args:
        profile: A profile as it is, or its file; None: the run's last one.
        run: Where that is kept; None: there is no run.
        macs_K: What the exits cost, by which a profile of another network is told.
        batched: Times per image of a batch, instead of one image at a time.

    Raises:
        UsageError: none is given and there is none.
        PolicyError: it is missing, is no profile, or is that of another network.
    """
    if isinstance(profile, Profile):
        return times_of(profile, macs_K, "a profile", batched=batched)
    if profile is not None:
        return times_of(read_profile(profile), macs_K, str(profile), batched=batched)
    if run is None:
        raise UsageError(
            "a budget of time needs times: --scores say nothing about them",
            hint="give --latency FILE, which `hdkd profile --format json` writes",
        )
    if not run.profile.exists():
        raise UsageError(
            f"{run.path}: a budget of time needs times, and it was not profiled yet",
            hint=f"run `hdkd profile {run.path}` on the device that is to run it, "
            "or give --latency FILE",
            subject=run.path,
        )
    return times_of(read_profile(run.profile), macs_K, str(run.profile), batched=batched)
