"""Refuses wishes about a policy that contradict each other."""

from __future__ import annotations

from collections.abc import Sequence

from hdkd_cli.choices import GuaranteeKind, RiskKind
from hdkd_cli.errors import SettingsError, UsageError
from hdkd_cli.evaluation.calibration import POLICIES
from hdkd_cli.evaluation.times import parse_time


def refuse_contradictions(
    kind: str,
    budgets: Sequence[str | float],
    target_accuracy: float | None,
    max_risk: float | None,
) -> None:
    """One wish at a time, and one that the kind of policy can fulfil."""
    kinds = (*POLICIES, "risk")
    if kind not in kinds:
        raise SettingsError(f"policy {kind!r}: no such kind", hint=f"there are {', '.join(kinds)}")
    wishes = {"--budget": budgets, "--target-accuracy": target_accuracy, "--max-risk": max_risk}
    given = [name for name, value in wishes.items() if value is not None and value != ()]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)}: give one of them")
    if kind == "risk" and given != ["--max-risk"]:
        raise UsageError(
            "--policy risk: guarantees a risk, and none is given",
            hint="give --max-risk E (0.05 is 5 %)",
        )
    if kind != "risk" and max_risk is not None:
        raise UsageError(f"--max-risk: only --policy risk guarantees one, not {kind}")


def refuse_odd_guarantee(
    max_risk: float | None,
    delta: float | None,
    guarantee: GuaranteeKind | None,
    loss: RiskKind | None,
    calibration_scores: object,
) -> None:
    """What is about a guarantee needs one; ε and δ lie strictly between 0 and 1; CRC has no δ."""
    if max_risk is None and (delta, guarantee, loss, calibration_scores) != (None,) * 4:
        raise UsageError(
            "--delta, --guarantee, --loss and --calibration-scores are about a guarantee",
            hint="give --max-risk too",
        )
    for name, value in {"--max-risk": max_risk, "--delta": delta}.items():
        if value is not None and not 0 < value < 1:
            raise UsageError(f"{name} {value:g}: is not between 0 and 1", hint="0.05, say")
    if guarantee == "crc" and delta is not None:
        raise UsageError(
            "--delta: crc bounds the risk on average and has none", hint="drop one of them"
        )


def seconds_wanted(
    budgets: Sequence[str | float], latency: bool, max_risk: float | None, batched: bool
) -> list[float] | None:
    """The budgets in seconds, if thresholds are to save time; None: they are to save MACs."""
    seconds = [parse_time(str(budget)) for budget in budgets]
    in_time = [one for one in seconds if one is not None]
    if latency and max_risk is not None:
        raise UsageError("--latency: a guarantee of risk is searched by MACs", hint="drop it")
    if len(in_time) < len(seconds) and (in_time or latency):
        raise UsageError(
            "--budget: give all budgets as times (3ms), or none",
            hint="with --latency they are times",
        )
    if latency or in_time:
        return in_time
    if batched:
        raise UsageError("--batched is about times", hint="give a budget such as 3ms, or --latency")
    return None
