"""A file of scores without a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hdkd_cli.choices import (
    HeldOut,
)
from hdkd_cli.errors import UsageError
from hdkd_cli.evaluation.compatibility import check_scores
from hdkd_cli.evaluation.policy import ExitPolicy
from hdkd_cli.evaluation.scores import Scores, read_scores
from hdkd_cli.library.evaluated import Evaluated
from hdkd_cli.library.given import given_policy
from hdkd_cli.settings.schema import EvaluationSettings


@dataclass(frozen=True, kw_only=True)
class ScoreFile(Evaluated):
    """A file of scores without a run: its policies are files.

    Attributes:
        path: The file.
    """

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def reading(self) -> EvaluationSettings:
        return EvaluationSettings()

    @property
    def class_names(self) -> None:
        return None

    def scores(self, split: HeldOut | None = None, *, images: Path | None = None) -> Scores:
        if images is not None:
            raise UsageError("--images: other images are scored by a network", hint="give RUN")
        found = read_scores(self.path)
        for warning in check_scores(found, {} if split is None else {"split": split}):
            self.warn(f"{self.path}: {warning}")
        return found

    def find_policy(self, policy: ExitPolicy | str | Path | None = None) -> ExitPolicy:
        if policy is None:
            raise UsageError("--scores needs --policy FILE: there is no run to take a policy from")
        return given_policy(policy)

    def calibration_scores(self, scores: Path | Scores | None = None) -> Scores:
        if scores is None:
            raise UsageError(
                "a guarantee needs samples that trained nothing",
                hint="give --calibration-scores FILE",
            )
        return scores if isinstance(scores, Scores) else read_scores(scores)

    @property
    def _run(self) -> None:
        return None

    def _clock(self) -> NoReturn:
        raise UsageError("--measured runs the network: it needs RUN, not --scores")

    def _val_scores(self) -> Scores:
        raise UsageError(
            "--combination fitted: it is fitted on val, and these scores are not (or do not say "
            "so: --split val does)",
            hint="give RUN, or calibrate a policy on val scores",
        )
