"""What a report says about a run: numbers and names out of its folder. Nothing is drawn here.

K exits, N samples, P operating points. What a run lacks is told, not raised, with the command that
makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.errors import ArtifactError, DataError, RunError
from hdkd_cli.evaluation.anytime import anytime
from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.evaluation.compatibility import check_policy
from hdkd_cli.evaluation.policy import ExitPolicy, read_policy
from hdkd_cli.evaluation.reliability import Reliability, reliability
from hdkd_cli.evaluation.scores import Scores, read_scores
from hdkd_cli.evaluation.simulate import Simulation, budget, simulate, threshold_array
from hdkd_cli.evaluation.table import ExitTable, tabulate
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.settings.schema import Settings
from hdkd_cli.ui.report.history import History, read_history


@dataclass(frozen=True)
class Missing:
    """Something that a report could show and this one does not.

    Attributes:
        what: What and why, a sentence.
        command: What would make it, if a command does.
    """

    what: str
    command: str | None = None

    @property
    def sentence(self) -> str:
        """All of it as text."""
        return self.what + (f" Next: {self.command}" if self.command else "")


@dataclass(frozen=True, eq=False)
class BudgetCurve:
    """A policy on the test split.

    Attributes:
        name: Its name in the run.
        policy: The policy.
        record: Its operating points, schema ``hdkd/budget/1``.
        table: Confidences and predictions as the policy reads them.
        result: Every sample's way out at every operating point.
        chosen: The point of highest validation accuracy, counted from 0.
    """

    name: str
    policy: ExitPolicy
    record: Mapping[str, Any]
    table: ExitTable
    result: Simulation
    chosen: int

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
    """What the test scores say.

    Attributes:
        anytime: Each exit alone, schema ``hdkd/anytime/1``.
        table: Confidence (largest probability) and prediction of each exit alone.
        reliability_K: Their reliability diagrams.
        curves: One for each policy of the run; the one calibrated last comes first.
        split_sha256: Which samples; None: unknown.
    """

    anytime: Mapping[str, Any]
    table: ExitTable
    reliability_K: tuple[Reliability, ...]
    curves: tuple[BudgetCurve, ...]
    split_sha256: str | None


@dataclass(frozen=True, eq=False)
class RunContent:
    """All that a report says about one run.

    Attributes:
        folder: The run.
        label: Its short name here.
        info: Its run.json.
        settings: Its settings.
        history: Its training; None: nothing was logged.
        evaluation: Its test scores; None: there are none.
        missing: What is not here, and why.
    """

    folder: RunFolder
    label: str
    info: Mapping[str, Any]
    settings: Settings
    history: History | None
    evaluation: Evaluation | None
    missing: tuple[Missing, ...]

    @property
    def path(self) -> str:
        """Where the run is, as text."""
        return printable(str(self.folder.path))


def printable(text: str) -> str:
    """``text`` in one line, without what no file can hold or no screen can show."""
    unknown = "\N{REPLACEMENT CHARACTER}"
    return "".join(c if c.isprintable() else " " if c.isspace() else unknown for c in text)


def read_run(
    run: RunFolder, scores_of: Callable[[RunFolder], Scores], letter: str | None = None
) -> RunContent:
    """Read all there is to say about a run.

    Args:
        run: The run.
        scores_of: Gives its test scores.
        letter: What tells it from other runs in the same report.

    Raises:
        RunError: settings.toml or run.json is missing or damaged.
        SettingsError: the settings are of another version.
    """
    info, settings = run.info(), run.settings()
    missing: list[Missing] = []
    path = printable(str(run.path))
    if info.get("status") != "finished":
        missing.append(
            Missing(
                f"The run is not finished (status: {info.get('status')}): "
                "numbers are those of its newest checkpoint.",
                f"hdkd train --resume {path}",
            )
        )
    history = _history(run, missing)
    evaluation = _evaluation(run, settings, scores_of, missing)
    name = printable(f"{info.get('preset')} s{info.get('seed')}")
    label = name if letter is None else f"{letter} · {name}"
    return RunContent(run, label, info, settings, history, evaluation, tuple(missing))


def _history(run: RunFolder, missing: list[Missing]) -> History | None:
    try:
        history = read_history(run)
    except (OSError, RunError, ValueError, KeyError, TypeError) as problem:
        missing.append(Missing(printable(f"The training log cannot be read ({problem}).")))
        return None
    if history is None:
        missing.append(
            Missing(
                "Nothing was logged in training yet: no weights and no validation accuracy.",
                f"hdkd train --resume {printable(str(run.path))}",
            )
        )
    return history


def _evaluation(
    run: RunFolder,
    settings: Settings,
    scores_of: Callable[[RunFolder], Scores],
    missing: list[Missing],
) -> Evaluation | None:
    path = printable(str(run.path))
    try:
        scores = _test_scores(run, scores_of, missing)
    except ArtifactError as problem:
        missing.append(
            Missing(printable(f"There are no test scores: {problem}."), f"hdkd eval-anytime {path}")
        )
        return None
    single = fixed_combination("single", scores.macs_K)
    temperatures = (1.0,) * scores.num_exits
    bins = settings.evaluation.ece_bins
    table = tabulate(scores, single, temperatures, "max-prob")
    curves = _curves(run, scores, missing)
    if not curves:
        missing.append(
            Missing(
                "No exit policy: nothing can be said about budgets, about who leaves where, or "
                "about easy and hard images.",
                f"hdkd calibrate-thresholds {path}",
            )
        )
    return Evaluation(
        anytime=anytime(scores, single, temperatures, ece_bins=bins, run=path).as_record(),
        table=table,
        reliability_K=tuple(
            reliability(table.confidence_KN[k], table.correct_KN[k], bins)
            for k in range(scores.num_exits)
        ),
        curves=curves,
        split_sha256=scores.meta.get("split_sha256"),
    )


def _test_scores(
    run: RunFolder, scores_of: Callable[[RunFolder], Scores], missing: list[Missing]
) -> Scores:
    """The run's test scores; where its images are gone, those it kept of the same checkpoint."""
    try:
        return scores_of(run)
    except DataError as problem:
        kept = run.path / "scores" / "test.safetensors"
        if not kept.exists():
            raise
        scores = read_scores(kept)
        if scores.meta.get("checkpoint_sha256") != run.checkpoint().model_sha256:
            raise
        said = f"The test images cannot be used ({problem}): scores kept earlier serve."
        missing.append(Missing(printable(said)))
        return scores


def _curves(run: RunFolder, scores: Scores, missing: list[Missing]) -> tuple[BudgetCurve, ...]:
    last = (run.policies / "last").resolve().stem
    names = sorted(path.stem for path in run.policies.glob("*.json"))
    found = []
    for name in sorted(names, key=lambda name: name != last):
        try:
            policy = read_policy(run.policies / f"{name}.json")
            check_policy(policy, scores, allow_mismatch=False)
        except ArtifactError as problem:
            missing.append(
                Missing(
                    printable(f"Policy “{name}” is left out: {problem}."),
                    f"hdkd calibrate-thresholds {printable(str(run.path))}",
                )
            )
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
