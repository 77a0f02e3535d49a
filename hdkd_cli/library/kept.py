"""A run as far as its folder tells: settings, policies, scores that were kept.

That is all that evaluation needs while scores are kept, and none of it needs torch. What needs the
network or the images is asked of `Run`, which is imported then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hdkd_cli.choices import HeldOut
from hdkd_cli.errors import RunError, ScoresError, UsageError
from hdkd_cli.evaluation.policy import ExitPolicy, read_policy
from hdkd_cli.evaluation.scores import Scores, read_scores
from hdkd_cli.library.evaluated import Evaluated
from hdkd_cli.library.given import given_policy
from hdkd_cli.records.evaluation import Budget
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.settings.keys import leaves
from hdkd_cli.settings.schema import EvaluationSettings, Settings
from hdkd_cli.settings.transform import describe
from hdkd_cli.settings.trust import trust_factories

if TYPE_CHECKING:
    from hdkd_cli.library.run import Run


@dataclass(frozen=True, kw_only=True)
class KeptRun(Evaluated):
    """What a run's folder tells. The fields are those of `Run`."""

    folder: RunFolder
    data_dir: Path | None = None
    device: str | None = None
    batch_size: int | None = None

    @classmethod
    def open(cls, path: str | PathLike[str], *, trust_code: bool = False, **use: Any) -> Self:
        """Open a run folder, or one checkpoint in it (``RUN/checkpoints/step-100``).

        Args:
            path: The folder.
            trust_code: Import the code that the run's settings name.
            **use: The other attributes.

        Raises:
            RunError: there is no run at ``path``.
            CheckpointError: ``path`` names a checkpoint that is not complete.
        """
        folder = RunFolder.open(Path(path))
        if trust_code:
            trust_factories(leaves(folder.settings()).values())
        return cls(folder=folder, **use)

    @cached_property
    def _opened(self) -> Run:
        """The same run with its images and its network."""
        from hdkd_cli.library.run import Run

        return Run(**{field.name: getattr(self, field.name) for field in fields(self)})

    # -- what it is ---------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def name(self) -> str:
        return str(self.folder.path)

    @property
    def _run(self) -> RunFolder:
        return self.folder

    @cached_property
    def settings(self) -> Settings:
        """What it was made with."""
        return self.folder.settings()

    @property
    def reading(self) -> EvaluationSettings:
        return self.settings.evaluation

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels.

        Raises:
            RunError: it never began to train.
        """
        classes = self.folder.info().classes
        if not classes:
            raise RunError(f"{self.path}: never began to train (run.json names no classes)")
        return classes

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.classes

    # -- policies -----------------------------------------------------------------------------

    def has_policy(self) -> bool:
        """Whether one was calibrated."""
        return (self.folder.policies / "last").exists()

    def find_policy(self, policy: ExitPolicy | str | Path | None = None) -> ExitPolicy:
        policies = self.folder.policies
        if policy is None:
            if not self.has_policy():
                raise UsageError(
                    f"{self.path}: no policy was calibrated yet",
                    hint=f"run `hdkd calibrate-thresholds {self.path}`",
                    subject=self.path,
                )
            return read_policy((policies / "last").resolve())
        named = policies / f"{policy}.json" if isinstance(policy, str) else None
        if named is not None and named.exists():
            return read_policy(named)
        return given_policy(policy, sorted(path.stem for path in policies.glob("*.json")))

    # -- scores -------------------------------------------------------------------------------

    def scores(self, split: HeldOut | None = None, *, images: Path | None = None) -> Scores:
        if images is not None:
            if split is not None:
                raise UsageError("--images are no split: give --split or --images, not both")
            return self._opened._score_folder(images)
        split = split or "test"
        kept = self._kept_scores(split)
        return self._opened._collect(split) if kept is None else kept

    def _scores_path(self, split: HeldOut) -> Path:
        """Where the scores of a split are kept."""
        return self.path / "scores" / f"{split}.safetensors"

    def _fingerprints(self, split: str, split_sha256: str) -> Mapping[str, str]:
        """What scores say about themselves if they are this run's as it is now."""
        return {
            "checkpoint_sha256": self.folder.checkpoint().model_sha256,
            "split": split,
            "split_sha256": split_sha256,
            "transform": describe(self.settings.data),
            "precision": "fp32",
            "network": str(self.settings.model.name),
            "dataset": self.settings.data.name,
        }

    def _kept_scores(self, split: HeldOut) -> Scores | None:
        """Scores collected earlier, if they are what would be collected now."""
        path = self._scores_path(split)
        if not path.exists():
            return None
        if self.data_dir is not None:
            split_sha256 = self._opened.data(split).splits[split].sha256
        else:
            split_sha256 = self.folder.info().splits.get(split, "")
        try:
            scores = read_scores(path)
        except ScoresError as problem:
            self.note(f"{problem}; collecting the scores again")
            return None
        return scores if dict(scores.meta) == self._fingerprints(split, split_sha256) else None

    def _val_scores(self) -> Scores:
        return self.scores("val")

    def calibration_scores(self, scores: Path | Scores | None = None) -> Scores:
        if scores is not None:
            raise UsageError("--calibration-scores goes with --scores; a run has its own split")
        if self.settings.data.calibration_fraction == 0:
            raise UsageError(
                f"{self.path}: has no calibration split, and its val split trained the loss "
                "weights",
                hint="train with --set data.calibration_fraction=0.5, say",
            )
        return self.scores("calibration")

    # -- what runs the network ----------------------------------------------------------------

    def _clock(self) -> Callable[[Budget, ExitPolicy, Scores], Budget]:
        return self._opened._time_points
