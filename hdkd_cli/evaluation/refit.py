"""The thresholds of a policy, found anew for a network that answers a little differently."""

from __future__ import annotations

from collections.abc import Callable

from hdkd_cli.evaluation.calibration import calibrate_risk, fit_policy
from hdkd_cli.evaluation.compatibility import check_calibration
from hdkd_cli.evaluation.policy import ExitPolicy
from hdkd_cli.evaluation.scores import Scores


def refit(
    policy: ExitPolicy,
    scores: Scores,
    calibration: Callable[[], Scores],
    warn: Callable[[str], object],
) -> ExitPolicy:
    """A policy found as ``policy`` was, for the same budget or promise, on other scores.

    Combination, temperatures and thresholds are fitted again. A point that was made for no budget
    may cost what it cost on the scores it was fitted on.

    Args:
        policy: One operating point.
        scores: Of the network that it is for; any split but test.
        calibration: Of the same network, samples used for nothing else; for guarantees alone.
        warn: Told what cannot be told of these.

    Raises:
        SettingsError: the scores are of the test split.
        BudgetError: the budget is below the cost of the first exit.
    """
    (point,) = policy.points
    kind = policy.combination.kind
    temperature = kind != "fitted" and any(t != 1 for t in policy.temperatures)
    if promised := policy.guarantee:
        held_out = calibration()
        for warning in check_calibration(scores, held_out):
            warn(warning)
        return calibrate_risk(
            scores,
            held_out,
            combination=kind,
            confidence=policy.confidence,
            temperature=temperature,
            guarantee=promised.kind,
            loss=promised.loss,
            epsilon=promised.epsilon,
            delta=promised.delta or 0.0,  # crc has none
        )
    found = fit_policy(
        policy.kind,
        scores,
        combination=kind,
        confidence=policy.confidence,
        temperature=temperature,
        budgets_macs=[point.target_macs or point.val_macs],
    )
    if point.target_macs is None:
        (made,) = found.points
        found = found.only(made.model_copy(update={"target_macs": None}))
    return found
