"""What can be evaluated and calibrated, be it a run or a score file: all of it reads `Scores`."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hdkd_cli.choices import CombinationKind, GuaranteeKind, HeldOut, RiskKind
from hdkd_cli.errors import UsageError
from hdkd_cli.evaluation.anytime import anytime, per_class
from hdkd_cli.evaluation.budget import parse_budget
from hdkd_cli.evaluation.calibration import (
    POLICIES,
    RISK_COMBINATION,
    RISK_CONFIDENCE,
    calibrate_risk,
    fit_combination,
    fit_policy,
)
from hdkd_cli.evaluation.compatibility import check_calibration, check_policy
from hdkd_cli.evaluation.policy import ExitPolicy, write_policy
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.simulate import budget
from hdkd_cli.evaluation.watch import DELTA
from hdkd_cli.files import led_to
from hdkd_cli.library.given import given_times
from hdkd_cli.library.wishes import refuse_contradictions, refuse_odd_guarantee, seconds_wanted
from hdkd_cli.records.evaluation import Anytime, Budget
from hdkd_cli.records.profile import Profile
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.settings.schema import EvaluationSettings

Tell = Callable[[str], object]


def quiet(sentence: str) -> None:
    """Drop a note."""


def warn(sentence: str) -> None:
    """Tell as Python does."""
    warnings.warn(sentence, stacklevel=2)


@dataclass(frozen=True, kw_only=True)
class Evaluated(ABC):
    """Something that has scores.

    Attributes:
        allow_mismatch: Use a policy that was fitted on another checkpoint, with a warning.
        note: Told in sentences what is worth knowing.
        warn: Told in sentences what may make numbers other than they seem.
    """

    allow_mismatch: bool = False
    note: Tell = field(default=quiet, repr=False)
    warn: Tell = field(default=warn, repr=False)

    @property
    @abstractmethod
    def name(self) -> str:
        """What records call it: its path."""

    @property
    @abstractmethod
    def reading(self) -> EvaluationSettings:
        """How its scores are read."""

    @abstractmethod
    def scores(self, split: HeldOut | None = None, *, images: Path | None = None) -> Scores:
        """The logits of every exit for a split.

        Args:
            split: Which; None: a run's test split, a file's only one.
            images: A folder with a folder of images per class of the run, instead of a split: they
                are scored as what they are, and not kept.

        Raises:
            UsageError: a split and a folder, or a folder without a run.
            DataError: the images are missing, or are not those of the split; it is empty.
            ScoresError: the file is unusable, or of another split.
        """

    @abstractmethod
    def find_policy(self, policy: ExitPolicy | str | Path | None = None) -> ExitPolicy:
        """A policy by name or path, or as it is; whether it fits is for others to check.

        Args:
            policy: A policy, its name in the run, a file; None: the one calibrated last.

        Raises:
            UsageError: none is given and none was calibrated.
            PolicyError: it is missing or unusable.
        """

    @abstractmethod
    def calibration_scores(self, scores: Path | Scores | None = None) -> Scores:
        """Scores of samples that trained nothing.

        Args:
            scores: Where they are, for a score file; a run has a split of its own.

        Raises:
            UsageError: there are none.
        """

    @property
    @abstractmethod
    def _run(self) -> RunFolder | None:
        """Where policies are kept."""

    def anytime(
        self,
        split: HeldOut | None = None,
        *,
        images: Path | None = None,
        combination: CombinationKind = "single",
        by_class: bool = False,
    ) -> Anytime:
        """Accuracy of each exit against its cost.

        Args:
            split: Which images; None: test.
            images: A folder of other labelled images, see `scores`.
            by_class: Also tell the accuracy on each class, and what it is taken for.
            combination: How an exit uses the exits before it; ``fitted`` is fitted on val.

        Raises:
            UsageError: ``fitted``, and there are no val scores to fit on.
        """
        scores = self.scores(split, images=images)
        held_out = scores
        if combination == "fitted":
            if scores.meta.get("split", split) == "val":
                self.warn(
                    "the combination is evaluated on the samples it was fitted on: too favourable"
                )
            else:
                held_out = self._val_scores()
        reading = fit_combination(held_out, combination, temperature=False)
        record = anytime(scores, *reading, ece_bins=self.reading.ece_bins, run=self.name)
        if not by_class:
            return record
        accuracies, confusion = per_class(scores, *reading, self.class_names)
        return record.model_copy(update={"per_class": accuracies, "confusion": confusion})

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str] | None:
        """Class names in the order of the labels; None: not known."""

    @abstractmethod
    def _val_scores(self) -> Scores: ...

    def evaluate(
        self,
        policy: ExitPolicy | str | Path | None = None,
        split: HeldOut | None = None,
        *,
        images: Path | None = None,
        measured: bool = False,
    ) -> Budget:
        """Accuracy and mean cost at every operating point of a policy.

        Args:
            policy: A policy, its name in the run, a file; None: the one calibrated last.
            split: Which images; None: test.
            images: A folder of other labelled images, see `scores`.
            measured: Also run every point on some of the images, and time it (a minute).

        Raises:
            UsageError: no policy is given and none was calibrated; there is no network to measure.
            PolicyError: the policy is missing, unusable, or of another network.
        """
        timed = self._clock() if measured else None
        if measured and images is not None:
            raise UsageError("--measured times images of a split: it does not go with --images")
        found, scores = self.find_policy(policy), self.scores(split, images=images)
        for warning in check_policy(found, scores, allow_mismatch=self.allow_mismatch):
            self.warn(warning)
        record = budget(found, scores, run=self.name)
        return record if timed is None else timed(record, found, scores)

    @abstractmethod
    def _clock(self) -> Callable[[Budget, ExitPolicy, Scores], Budget]:
        """What runs every point on some images and adds what it took to its row.

        Raises:
            UsageError: there is no network to run.
        """

    def calibrate(
        self,
        kind: str | None = None,
        *,
        budgets: Sequence[str | float] = (),
        target_accuracy: float | None = None,
        max_risk: float | None = None,
        delta: float | None = None,
        guarantee: GuaranteeKind | None = None,
        loss: RiskKind | None = None,
        calibration_scores: Path | Scores | None = None,
        split: HeldOut | None = None,
        combination: CombinationKind | None = None,
        confidence: str | None = None,
        temperature: bool = False,
        output: Path | None = None,
        latency: Path | Profile | None = None,
        batched: bool = False,
    ) -> ExitPolicy:
        """Find confidence thresholds; the policy is kept in the run, or in ``output``.

        Args:
            kind: ``geometric``, ``optimal``, ``risk`` or a registered one; None: geometric, or
                risk with ``max_risk``.
            budgets: Mean costs to meet, as fractions of the full network (0.4), MACs ("30M") or
                times per image ("3ms"); none: a family of operating points.
            target_accuracy: Keep the cheapest point that is this accurate, in percent.
            max_risk: The fastest point whose risk is guaranteed to be at most this.
            delta: Probability that the guarantee fails; None: 0.1.
            guarantee: Whether the risk is bounded with probability 1 − delta (``ltt``, the
                default) or on average (``crc``).
            loss: What the risk is the mean of; None: ``disagreement``.
            calibration_scores: For a score file with ``max_risk``: samples used for nothing else.
            split: What thresholds are found on; None: val.
            combination: How an exit uses the exits before it; None: the policy's own.
            confidence: What is compared with the thresholds; None: the policy's own.
            temperature: Fit a temperature for each exit first.
            output: Where to write it, instead of the run's folder.
            latency: A profile made on the device that is to run the network: thresholds are then
                the best for its times. None: for budgets of time, the run's last profile.
            batched: Times per image of a batch as profiled, instead of one image at a time.

        Raises:
            UsageError: what is asked for contradicts itself, or cannot be reached.
            SettingsError: of the test split, or of samples that were used for something else.
        """
        if split == "test":
            raise UsageError(
                "--split test: the test split is for evaluation only", hint="calibrate on val"
            )
        budgets = tuple(budgets)
        kind = kind or ("geometric" if max_risk is None else "risk")
        refuse_contradictions(kind, budgets, target_accuracy, max_risk)
        seconds = seconds_wanted(budgets, latency is not None, max_risk, batched)
        refuse_odd_guarantee(max_risk, delta, guarantee, loss, calibration_scores)
        scores = self.scores(split or ("val" if self._run else None))
        if max_risk is not None:
            held_out = self.calibration_scores(calibration_scores)
            for warning in check_calibration(scores, held_out):
                self.warn(warning)
            policy = calibrate_risk(
                scores,
                held_out,
                combination=combination or RISK_COMBINATION,
                confidence=confidence or RISK_CONFIDENCE,
                temperature=temperature,
                guarantee=guarantee or "ltt",
                loss=loss or "disagreement",
                epsilon=max_risk,
                delta=delta or DELTA,
            )
            self._tell(policy)
        else:
            policy = fit_policy(
                kind,
                scores,
                combination=combination or POLICIES[kind].combination,
                confidence=confidence or POLICIES[kind].confidence,
                temperature=temperature,
                budgets_macs=[
                    parse_budget(str(one), scores.macs_K[-1]) for one in budgets if seconds is None
                ],
                times=None
                if seconds is None
                else given_times(latency, self._run, scores.macs_K, batched=batched),
                budgets_seconds=seconds or (),
            )
            if target_accuracy is not None:
                policy = policy.only(policy.cheapest(target_accuracy))
        if output is not None:
            write_policy(led_to(output), policy)
        elif self._run is not None:
            self._run.keep_policy(kind, policy.as_record())
        return policy

    def _tell(self, policy: ExitPolicy) -> None:
        """What a guarantee says, and whether it leaves anything to gain."""
        assert policy.guarantee is not None
        self.note(policy.guarantee.statement)
        if all(t is None for t in policy.points[0].thresholds):
            self.warn(
                f"with {policy.guarantee.n} calibration samples nothing faster is safe: all images "
                "take the last exit; set more aside, or allow a larger --max-risk"
            )
