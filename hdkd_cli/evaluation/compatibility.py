"""What may be used with what: scores with a run, a policy with scores.

Each check raises where going on would give wrong numbers, and returns warnings, as sentences for a
person, where it merely cannot tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from hdkd_cli.errors import PolicyError, ScoresError, SettingsError
from hdkd_cli.evaluation.policy import ExitPolicy
from hdkd_cli.evaluation.scores import Scores

# Which weights, which samples, and how the images were prepared.
FINGERPRINTS = ("checkpoint_sha256", "split", "split_sha256", "transform")
_SAME_NETWORK = ("checkpoint_sha256", "transform")


def check_scores(scores: Scores, expected: Mapping[str, str]) -> list[str]:
    """Whether ``scores`` are what they are taken for.

    Args:
        scores: The scores.
        expected: Name of a metadata field → what it must be, as far as the caller knows.

    Returns:
        A warning if the scores lack fingerprints, which leaves them unchecked.

    Raises:
        ScoresError: a field differs.
    """
    for name, wanted in expected.items():
        if name in scores.meta and scores.meta[name] != wanted:
            raise ScoresError(
                f"the scores are of another {name} "
                f"({_short(scores.meta[name])}, not {_short(wanted)}): collect them again"
            )
    absent = [name for name in FINGERPRINTS if name not in scores.meta]
    if not absent:
        return []
    return [f"the scores do not record {', '.join(absent)}: what they belong to is not checked"]


def refuse_test_split(scores: Scores) -> None:
    """Nothing is fitted on the test split.

    Raises:
        SettingsError: the scores say that they are of the test split.
    """
    if scores.meta.get("split") == "test":
        raise SettingsError(
            "calibration on the test split: it is for evaluation only",
            hint="use the scores of val",
        )


def check_calibration(scores: Scores, calibration: Scores) -> list[str]:
    """Whether ``calibration`` may bear a guarantee about thresholds that ``scores`` gave.

    Args:
        scores: What the thresholds come from.
        calibration: Samples that must have been used for nothing else.

    Returns:
        Warnings, where they do not say what they are.

    Raises:
        SettingsError: they trained something, are those of ``scores``, or the test split.
        ScoresError: they are of another network.
    """
    refuse_test_split(calibration)
    split = calibration.meta.get("split")
    if split in {"train", "val"} or _are_the_same(scores, calibration):
        raise SettingsError(
            "a guarantee needs samples that trained nothing, neither the loss weights nor the "
            f"thresholds, but these are {split or 'those of the thresholds'}: train with "
            "data.calibration_fraction set, and use the calibration split"
        )
    if (scores.macs_K, scores.num_classes) != (calibration.macs_K, calibration.num_classes):
        raise ScoresError(
            "the calibration scores are of another network: their exits, costs or classes differ"
        )
    same = {name: scores.meta[name] for name in _SAME_NETWORK if name in scores.meta}
    return [f"calibration: {warning}" for warning in check_scores(calibration, same)]


def _are_the_same(a: Scores, b: Scores) -> bool:
    if "split_sha256" in a.meta and "split_sha256" in b.meta:
        return a.meta["split_sha256"] == b.meta["split_sha256"]
    return np.array_equal(a.labels_N, b.labels_N) and np.array_equal(a.logits_KNC, b.logits_KNC)


def check_policy(policy: ExitPolicy, scores: Scores, *, allow_mismatch: bool) -> list[str]:
    """Whether ``policy`` may be applied to ``scores``.

    Args:
        policy: The policy.
        scores: The scores it is to be evaluated on.
        allow_mismatch: Only warn if it was fitted on another checkpoint.

    Returns:
        Warnings: another checkpoint (allowed), an unknown one, the samples it was fitted on.

    Raises:
        PolicyError: another number of exits or classes, or another checkpoint.
    """
    check_exits(policy, scores.num_exits)
    if policy.fitted_on.classes not in {None, scores.num_classes}:
        raise PolicyError(
            f"the policy was fitted on {policy.fitted_on.classes} classes, the scores have "
            f"{scores.num_classes}: it was calibrated for another network"
        )
    checkpoint = scores.meta.get("checkpoint_sha256")
    warnings = check_checkpoint(policy, checkpoint, "the scores", allow_mismatch=allow_mismatch)
    if _same_samples(policy, scores):
        warnings.append("the policy is evaluated on the samples it was fitted on: too favourable")
    return warnings


def check_checkpoint(
    policy: ExitPolicy, checkpoint_sha256: str | None, owner: str, *, allow_mismatch: bool
) -> list[str]:
    """Whether ``policy`` was fitted on a checkpoint.

    Args:
        policy: The policy.
        checkpoint_sha256: The checkpoint it is to be used with, if that is known.
        owner: Whose checkpoint that is, for messages.
        allow_mismatch: Only warn if it was fitted on another one.

    Returns:
        Warnings: another checkpoint (allowed), an unknown one.

    Raises:
        PolicyError: another checkpoint.
    """
    fitted = policy.fitted_on.checkpoint_sha256
    if fitted is None or checkpoint_sha256 is None:
        silent = "the policy" if fitted is None else owner
        return [f"{silent} did not record a checkpoint: whether the policy belongs is not checked"]
    if fitted == checkpoint_sha256:
        return []
    difference = (
        f"the policy was fitted on checkpoint {_short(fitted)}, "
        f"that of {owner} is {_short(checkpoint_sha256)}"
    )
    if not allow_mismatch:
        raise PolicyError(f"{difference}: calibrate again, or pass --allow-mismatch")
    return [difference]


def check_exits(policy: ExitPolicy, num_exits: int) -> None:
    """A policy is for as many exits as there are.

    Raises:
        PolicyError: it does not.
    """
    if policy.num_exits != num_exits:
        raise PolicyError(
            f"the policy is for {policy.num_exits} exits, there are {num_exits}: "
            "it was calibrated for another network"
        )


def _same_samples(policy: ExitPolicy, scores: Scores) -> bool:
    fitted_on = policy.fitted_on
    if fitted_on.split_sha256 is not None and "split_sha256" in scores.meta:
        return fitted_on.split_sha256 == scores.meta["split_sha256"]
    return fitted_on.split is not None and fitted_on.split == scores.meta.get("split")


def _short(text: str) -> str:
    """A hash by its first characters, anything else as it is."""
    return text[:12] + "…" if re.fullmatch("[0-9a-f]{64}", text) else text
