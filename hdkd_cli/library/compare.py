"""Runs and score files side by side, from Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike

from hdkd_cli.choices import CompareBy, HeldOut
from hdkd_cli.errors import ArtifactError, UsageError
from hdkd_cli.evaluation.answers import Answers
from hdkd_cli.evaluation.budget import parse_budget
from hdkd_cli.evaluation.calibration import fit_policy
from hdkd_cli.evaluation.compare import compare as compare_answers
from hdkd_cli.evaluation.compare import refuse_nothing_to_compare
from hdkd_cli.evaluation.compatibility import check_checkpoint
from hdkd_cli.evaluation.policy import ExitPolicy, read_policy
from hdkd_cli.library.evaluated import Tell, quiet, warn
from hdkd_cli.library.kept import KeptRun
from hdkd_cli.library.score_file import ScoreFile
from hdkd_cli.records.comparison import Comparison
from hdkd_cli.settings.methods import method_names


def compare(
    sources: Sequence[KeptRun | ScoreFile | str | PathLike[str]],
    *,
    by: CompareBy = "run",
    budgets: Sequence[str | float] = (),
    split: HeldOut | None = None,
    note: Tell = quiet,
    warn: Tell = warn,
) -> Comparison:
    """How far runs differ from the first, per exit and per budget, with their intervals.

    Budgets use the policies that all runs have; if there are none, the geometric family of their
    val scores. A static network is compared with what those reach at its cost.

    Args:
        sources: At least two: runs, opened or by path, and score files.
        by: What is compared: each run, or methods, whose runs are their seeds.
        budgets: Mean costs: fractions of the first one's full network (0.4) or MACs ("30M"); none:
            33 from the first exit's cost to the last's, and their mean.
        split: Which images; None: test.
        note: Told in sentences what is worth knowing.
        warn: Told what is left out.

    Raises:
        UsageError: there is nothing to compare.
        ScoresError: none of them has the images of the first.
    """
    if len(sources) < 2:
        raise UsageError("give at least two runs or score files: differences are to the first")
    opened = [one if isinstance(one, KeptRun | ScoreFile) else KeptRun.open(one) for one in sources]
    runs = [one for one in opened if isinstance(one, KeptRun)]
    if by == "method" and len(runs) < len(opened):
        raise UsageError("--by method reads the method and seed of runs: a score file has neither")
    for run in runs:
        if (status := run.folder.info().status) != "finished":
            warn(f"{run.path}: is not finished ({status}): its newest checkpoint is compared")
    of_runs = _of_runs(runs, split or "test", note, warn)
    answers = [
        next(of_runs)
        if isinstance(one, KeptRun)
        else Answers.of(one.scores(split), {}, name=one.name, run=one.name)
        for one in opened
    ]
    macs = [parse_budget(str(budget), answers[0].macs_K[-1]) for budget in budgets]
    record = compare_answers(answers, by=by, budgets=macs)
    for other in record.incomparable:
        warn(f"{other.name} is not compared: {other.reason}")
    for sentence in record.notes:
        note(sentence)
    refuse_nothing_to_compare(record)
    return record


def _of_runs(runs: Sequence[KeptRun], role: HeldOut, note: Tell, warn: Tell) -> Iterator[Answers]:
    settings = [run.settings for run in runs]
    kept = [_policies(run, warn) for run in runs]
    of_several = [
        set(p) for p, of_run in zip(kept, settings, strict=True) if not of_run.model.static
    ]
    fit = bool(of_several) and not set.intersection(*of_several)
    if fit:
        note("the runs have no policy in common: budgets use the geometric family of val")
    methods = method_names(settings)
    for run, name, method, policies, of_run in zip(
        runs, _names(runs), methods, kept, settings, strict=True
    ):
        yield Answers.of(
            run.scores(role),
            _geometric(run, warn) if fit else policies,
            name=name,
            run=run.name,
            method=method,
            seed=of_run.training.seed,
        )


def _names(runs: Sequence[KeptRun]) -> list[str]:
    """What each run is called: its folder's name, or its path where names are not unique."""
    names = [run.path.resolve().name for run in runs]
    if len(set(names)) == len(names):
        return names
    paths = [str(run.path) for run in runs]
    if twice := sorted({path for path in paths if paths.count(path) > 1}):
        raise UsageError(f"{', '.join(twice)}: given more than once")
    return paths


def _policies(run: KeptRun, warn: Tell) -> Mapping[str, ExitPolicy]:
    """The policies of a run that belong to its checkpoint."""
    found = {}
    for path in sorted(run.folder.policies.glob("*.json")):
        try:
            policy = read_policy(path)
            check_checkpoint(
                policy, run.folder.checkpoint().model_sha256, run.name, allow_mismatch=False
            )
        except ArtifactError as problem:
            warn(f"{path}: left out ({problem})")
            continue
        found[path.stem] = policy
    return found


def _geometric(run: KeptRun, warn: Tell) -> Mapping[str, ExitPolicy]:
    """The geometric family of the run's val scores, which is not kept."""
    try:
        scores = run.scores("val")
    except ArtifactError as problem:
        warn(f"{run.path}: no policy can be fitted ({problem})")
        return {}
    policy = fit_policy(
        "geometric",
        scores,
        combination="single",
        confidence="max-prob",
        temperature=False,
        budgets_macs=(),
    )
    return {"geometric": policy}
