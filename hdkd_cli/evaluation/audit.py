"""What is asked of an audit, and the watch that a policy gets by it; `watch` is the arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from hdkd_cli.errors import PolicyError, UsageError
from hdkd_cli.evaluation.policy import ExitPolicy, OperatingPoint
from hdkd_cli.evaluation.watch import Promise, Watch, fingerprint, promised
from hdkd_cli.files import write_json
from hdkd_cli.reading import parse_record, read_text
from hdkd_cli.records.audit import Audit


@dataclass(frozen=True)
class Auditing:
    """What is asked of an audit.

    Attributes:
        share: Share of the images that go to the last exit besides.
        max_risk: The promise about answers; None: what the policy guarantees.
        delta: Probability of a false alarm; None: that with which the guarantee may fail, or 0.1.
        state: Where counts are kept between calls.

    Raises:
        UsageError: one is out of range.
    """

    share: float
    max_risk: float | None = None
    delta: float | None = None
    state: Path | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"--audit {self.share:g}: a share above 0, and at most 1, is needed")
        for name, value in (("--max-risk", self.max_risk), ("--delta", self.delta)):
            if value is not None and not 0 < value < 1:
                raise UsageError(f"{name} {value:g}: a number between 0 and 1 is needed")


def watching(
    policy: ExitPolicy,
    point: OperatingPoint,
    macs_K: Sequence[int],
    checkpoint_sha256: str,
    audit: Auditing,
    told: Callable[[str], object],
) -> Watch:
    """What holds an operating point to its promise; it goes on with the state, if there is one.

    Args:
        policy: The policy.
        point: Which of its points.
        macs_K: Cost of each exit.
        checkpoint_sha256: Of the network.
        audit: What is asked.
        told: Hears of an alarm, once.

    Raises:
        UsageError: it promises nothing about its answers, and neither does ``audit``.
        PolicyError: the state is of another policy, or unusable.
    """
    given = None if policy.guarantee is None else policy.guarantee.model_dump()
    max_risk, delta = promised(given, audit.max_risk, audit.delta)
    if max_risk is None:
        raise UsageError(
            f"--audit: a policy of kind {policy.kind} promises nothing about how many answers "
            "differ from the last exit's",
            hint="say --max-risk 0.05, or calibrate with --max-risk",
        )
    watch = Watch(
        Promise.of(
            macs_K, point.val_macs, policy.fitted_on.samples, max_risk=max_risk, delta=delta
        ),
        np.array(macs_K) / macs_K[-1],
        fingerprint(
            policy.confidence,
            policy.combination.weights,
            policy.temperatures,
            point.thresholds,
            checkpoint_sha256,
        ),
        audit.share,
        told,
        None if audit.state is None else partial(write_json, audit.state),
    )
    if audit.state is not None and audit.state.exists():
        resume(watch, audit.state)
    return watch


def resume(watch: Watch, path: Path) -> None:
    """Go on with the state of an earlier call.

    Raises:
        PolicyError: it is of another policy, or unusable.
    """
    text = read_text(path, PolicyError)
    kept = parse_record(Audit, Audit.schema_id, text, str(path), PolicyError)
    try:
        watch.resume(kept.model_dump())
    except ValueError as problem:
        raise PolicyError(
            f"{path}: {problem}",
            hint="name another file, or remove this one to begin anew",
            subject=path,
        ) from None
