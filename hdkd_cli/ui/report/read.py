"""What a report says about runs: numbers and words out of their folders. Nothing is drawn here.

What a run lacks is told, not raised, with the command that makes it.
K exits, N samples, P operating points, C classes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import ascii_uppercase
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.errors import ArtifactError, RunError
from hdkd_cli.evaluation.answers import Answers, Curve
from hdkd_cli.evaluation.anytime import anytime, per_class
from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.evaluation.compare import compare
from hdkd_cli.evaluation.compatibility import check_policy
from hdkd_cli.evaluation.policy import ExitPolicy, read_policy
from hdkd_cli.evaluation.reliability import Reliability, reliability
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.simulate import Simulation, budget, simulate, threshold_array
from hdkd_cli.evaluation.table import ExitTable, tabulate
from hdkd_cli.records.comparison import Comparison
from hdkd_cli.records.training import RunInfo
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.settings.methods import method_names
from hdkd_cli.settings.schema import Settings
from hdkd_cli.ui.report.history import History, read_history

ScoresOf = Callable[[RunFolder], Scores]


class Missing(NamedTuple):
    """Something that a report could show and this one does not: why, and what would make it."""

    what: str
    command: str | None = None

    @classmethod
    def of(cls, run: RunFolder, what: str, verb: str = "", more: str = "") -> Missing:
        """What ``run`` lacks, and the verb that makes it."""
        command = f"hdkd {verb} {run.path}{more}" if verb else None
        return cls(printable(what), command and printable(command))

    @property
    def sentence(self) -> str:
        """All of it as text."""
        return self.what + (f" Next: {self.command}" if self.command else "")


@dataclass(frozen=True, eq=False)
class BudgetCurve:
    """A policy on the test split."""

    name: str  # in the run
    policy: ExitPolicy
    record: Mapping[str, Any]  # its operating points, schema ``hdkd/budget/1``
    table: ExitTable  # confidences and predictions as the policy reads them
    result: Simulation  # every sample's way out at every operating point
    chosen: int  # the point of highest validation accuracy, counted from 0

    @cached_property
    def correct_PN(self) -> NDArray[np.bool_]:
        """Whether each sample is classified correctly at each operating point."""
        correct_PN: NDArray[np.bool_] = self.result.prediction_PN == self.table.labels_N
        return correct_PN

    @property
    def point(self) -> Mapping[str, Any]:
        """The record of the chosen point."""
        point: Mapping[str, Any] = self.record["points"][self.chosen]
        return point


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What the test scores say."""

    anytime: Mapping[str, Any]  # each exit alone, schema ``hdkd/anytime/1``
    table: ExitTable  # confidence (largest probability) and prediction of each exit alone
    reliability_K: tuple[Reliability, ...]
    curves: tuple[BudgetCurve, ...]  # one a policy; the one calibrated last comes first
    answers: Answers  # the same, as comparisons read it

    @property
    def confusion_CC(self) -> NDArray[np.int64]:
        """Test images of each class (rows) by what the last exit takes them for (columns)."""
        return np.array(self.anytime["confusion"])


@dataclass(frozen=True, eq=False)
class RunContent:
    """All that a report says about one run; None where there is nothing to say."""

    folder: RunFolder
    label: str  # its short name here, unlike that of the others
    info: RunInfo
    settings: Settings
    history: History | None
    evaluation: Evaluation | None
    missing: tuple[Missing, ...]

    @property
    def path(self) -> str:
        """Where the run is, as text."""
        return printable(str(self.folder.path))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels; numbers where run.json does not say."""
        assert self.evaluation is not None
        names = self.info.classes or range(self.evaluation.answers.num_classes)
        return tuple(printable(str(name)) for name in names)


def printable(text: str) -> str:
    """``text`` in one line, without what no file can hold or no screen can show."""
    unknown = "\N{REPLACEMENT CHARACTER}"
    return "".join(c if c.isprintable() else " " if c.isspace() else unknown for c in text)


def read_runs(folders: Sequence[RunFolder], scores_of: ScoresOf) -> list[RunContent]:
    """Read all there is to say about runs.

    Args:
        folders: The runs.
        scores_of: Gives the test scores of a run.

    Raises:
        RunError: settings.toml or run.json is missing or damaged.
        SettingsError: the settings are of another version.
    """
    methods = method_names([folder.settings() for folder in folders])
    letters = [f"{letter} · " for letter in ascii_uppercase] if len(folders) > 1 else [""]
    return [
        _read_run(folder, scores_of, letter, method)
        for folder, letter, method in zip(folders, letters, methods, strict=False)
    ]


def _read_run(run: RunFolder, scores_of: ScoresOf, letter: str, method: str) -> RunContent:
    info, settings = run.info(), run.settings()
    missing: list[Missing] = []
    if info.status != "finished":
        said = (
            f"The run is not finished (status: {info.status}): "
            "numbers are those of its newest checkpoint."
        )
        missing.append(Missing.of(run, said, "train --resume"))
    history = _history(run, missing)
    label = letter + printable(_name(run, info, method))
    evaluation = None
    try:
        evaluation = _evaluation(run, settings, scores_of(run), missing, label, method)
    except ArtifactError as problem:
        missing.append(Missing.of(run, f"There are no test scores: {problem}.", "eval-anytime"))
    return RunContent(run, label, info, settings, history, evaluation, tuple(missing))


def _name(run: RunFolder, info: RunInfo, method: str) -> str:
    """The name that a user gave the run; else its preset, method and seed."""
    folder = run.path.resolve().name
    automatic = rf"{re.escape(f'{info.preset}-s{info.seed}-')}\d{{8}}T\d{{6}}Z(-\d+)?"
    return f"{info.preset} {method} s{info.seed}" if re.fullmatch(automatic, folder) else folder


def _history(run: RunFolder, missing: list[Missing]) -> History | None:
    try:
        history = read_history(run)
    except (OSError, RunError, ValueError, KeyError, TypeError) as problem:
        missing.append(Missing.of(run, f"The training log cannot be read ({problem})."))
        return None
    if history is None:
        said = "Nothing was logged in training yet: no weights and no validation accuracy."
        missing.append(Missing.of(run, said, "train --resume"))
    return history


def _evaluation(
    run: RunFolder,
    settings: Settings,
    scores: Scores,
    missing: list[Missing],
    label: str,
    method: str,
) -> Evaluation:
    path = printable(str(run.path))
    single = fixed_combination("single", scores.macs_K)
    temperatures, bins = (1.0,) * scores.num_exits, settings.evaluation.ece_bins
    table = tabulate(scores, single, temperatures, "max-prob")
    curves = _curves(run, scores, missing)
    if not curves:
        said = (
            "No exit policy: nothing can be said about budgets, about where images leave, or about "
            "easy and hard images."
        )
        missing.append(Missing.of(run, said, "calibrate-thresholds"))
    exits = anytime(scores, single, temperatures, ece_bins=bins, run=path)
    classes, confusion = per_class(scores, single, temperatures)
    exits = exits.model_copy(update={"per_class": classes, "confusion": confusion})
    return Evaluation(
        anytime=exits.as_record(),
        table=table,
        reliability_K=tuple(
            reliability(confidence_N, correct_N, bins)
            for confidence_N, correct_N in zip(table.confidence_KN, table.correct_KN, strict=True)
        ),
        curves=curves,
        answers=Answers(
            name=label,
            method=method,
            seed=settings.training.seed,
            run=path,
            meta=scores.meta,
            labels_sha256=hashlib.sha256(table.labels_N.tobytes()).hexdigest(),
            num_classes=scores.num_classes,
            macs_K=scores.macs_K,
            correct_KN=table.correct_KN,
            curves={c.name: Curve(c.policy, c.table.correct_KN[0], c.correct_PN) for c in curves},
        ),
    )


def _curves(run: RunFolder, scores: Scores, missing: list[Missing]) -> tuple[BudgetCurve, ...]:
    last = (run.policies / "last").resolve().stem
    names = sorted(path.stem for path in run.policies.glob("*.json"))
    found = []
    for name in sorted(names, key=lambda name: name != last):
        try:
            policy = read_policy(run.policies / f"{name}.json")
            check_policy(policy, scores, allow_mismatch=False)
        except ArtifactError as problem:
            said = f"Policy “{name}” is left out: {problem}."
            missing.append(Missing.of(run, said, "calibrate-thresholds"))
            continue
        table = tabulate(scores, policy.combination, policy.temperatures, policy.confidence)
        found.append(
            BudgetCurve(
                name=name,
                policy=policy,
                record=budget(policy, scores, run=printable(str(run.path))).as_record(),
                table=table,
                result=simulate(table, threshold_array(policy.points)),
                chosen=policy.points.index(policy.select()),
            )
        )
    return tuple(found)


def comparisons(runs: Sequence[RunContent]) -> list[Comparison]:
    """Runs with test scores compared: each with the first; methods too, where seeds repeat."""
    answers = [run.evaluation.answers for run in runs if run.evaluation is not None]
    if len(answers) < 2:
        return []
    found = [compare(answers)]
    by_method = compare(answers, by="method")
    if any(len(side.runs) > 1 for side in by_method.sides):
        found.append(by_method)
    return found
