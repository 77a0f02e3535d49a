"""``hdkd compare``: differences between runs, or methods over seeds, with their intervals."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hdkd_cli.choices import CompareBy
from hdkd_cli.commands import options
from hdkd_cli.commands.inputs import open_run, score_source
from hdkd_cli.errors import ArtifactError, UsageError
from hdkd_cli.ui.console import talk
from hdkd_cli.ui.output import emit

if TYPE_CHECKING:
    from hdkd_cli.choices import HeldOut
    from hdkd_cli.evaluation.compare import Answers
    from hdkd_cli.evaluation.policy import ExitPolicy
    from hdkd_cli.library.run import Run

COLUMNS = (
    "other", "what", "first_pct", "other_pct", "difference_pct", "low_pct", "high_pct", "seeds",
    "seeds_t_low_pct", "seeds_t_high_pct", "seeds_bootstrap_low_pct", "seeds_bootstrap_high_pct",
    "p_holm", "verdict", "verdict_over",
)  # fmt: skip


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN...", help="Run folders; differences are to the first.", show_default=False
        ),
    ] = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option(
            "--scores", metavar="FILE", help="Score file, beside runs or alone. May be repeated."
        ),
    ] = None,
    by: Annotated[
        CompareBy,
        typer.Option(
            "--by", help="What is compared: each run, or methods, whose runs are their seeds."
        ),
    ] = "run",
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            metavar="B",
            help="Mean cost: a fraction of the first run's full network (0.4) or MACs (30M). May "
            "be repeated. Default: 33 from the first exit's cost to the last's, and their mean.",
        ),
    ] = None,
    split: options.SplitOption = None,
    data_dir: options.DataDirOption = None,
    device: options.DeviceOption = None,
    batch_size: options.BatchSizeOption = None,
    form: options.FormatOption = None,
) -> None:
    """How far runs differ from the first, per exit and per budget, and whether it is noise.

    Each difference has a paired bootstrap interval over images, which tells how trained networks
    would do on other images. With --by method and several seeds it also has intervals over seeds
    (Student's t, and bootstrap), which tell how another training would do. Budgets use the policies
    that all runs have; if there are none, the geometric family of their val scores. A static
    network is compared with what those reach at its cost. Default split: test.
    """
    from hdkd_cli.evaluation.budget import parse_budget
    from hdkd_cli.evaluation.compare import brief, refuse_nothing_to_compare
    from hdkd_cli.evaluation.compare import compare as compare_answers

    files = scores or []
    if len(runs or ()) + len(files) < 2:
        raise UsageError("give at least two runs or score files: differences are to the first")
    if by == "method" and files:
        raise UsageError("--by method reads the method and seed of runs: a score file has neither")

    opened = [
        open_run(name, data_dir=data_dir, device=device, batch_size=batch_size)
        for name in runs or ()
    ]
    answers = [*_of_runs(opened, split or "test"), *_of_files(files, split)]
    macs = [parse_budget(text, answers[0].macs_K[-1]) for text in budget or ()]
    record = compare_answers(answers, by=by, budgets=macs)
    for one in record.incomparable:
        talk.warning(f"{one.name} is not compared: {one.reason}")
    for note in record.notes:
        talk.note(note)
    refuse_nothing_to_compare(record)
    if form == "table" or (form is None and sys.stdout.isatty()):
        record = brief(record)
    emit(record, form, columns=COLUMNS)


def _of_runs(runs: Sequence[Run], role: HeldOut) -> Iterator[Answers]:
    from hdkd_cli.evaluation.compare import Answers, method_names

    settings = [run.settings for run in runs]
    kept = [_policies(run) for run in runs]
    of_several = [
        set(p) for p, of_run in zip(kept, settings, strict=True) if not of_run.model.static
    ]
    fit = bool(of_several) and not set.intersection(*of_several)
    if fit:
        talk.note("the runs have no policy in common: budgets use the geometric family of val")
    methods = method_names(settings)
    for run, name, method, policies, of_run in zip(
        runs, _names(runs), methods, kept, settings, strict=True
    ):
        yield Answers.of(
            run.scores(role),
            _geometric(run) if fit else policies,
            name=name,
            run=run.name,
            method=method,
            seed=of_run.training.seed,
        )


def _of_files(files: Sequence[Path], split: HeldOut | None) -> Iterator[Answers]:
    from hdkd_cli.evaluation.compare import Answers

    for path in files:
        source = score_source(None, path)
        yield Answers.of(source.scores(split), {}, name=source.name, run=source.name)


def _names(runs: Sequence[Run]) -> list[str]:
    """What each run is called: its folder's name, or its path where names are not unique."""
    names = [run.path.resolve().name for run in runs]
    if len(set(names)) == len(names):
        return names
    paths = [str(run.path) for run in runs]
    if twice := sorted({path for path in paths if paths.count(path) > 1}):
        raise UsageError(f"{', '.join(twice)}: given more than once")
    return paths


def _policies(run: Run) -> Mapping[str, ExitPolicy]:
    """The policies of a run that belong to its checkpoint."""
    from hdkd_cli.evaluation.compatibility import check_checkpoint
    from hdkd_cli.evaluation.policy import read_policy

    found = {}
    for path in sorted(run.folder.policies.glob("*.json")):
        try:
            policy = read_policy(path)
            check_checkpoint(
                policy, run.folder.checkpoint().model_sha256, run.name, allow_mismatch=False
            )
        except ArtifactError as problem:
            talk.warning(f"{path}: left out ({problem})")
            continue
        found[path.stem] = policy
    return found


def _geometric(run: Run) -> Mapping[str, ExitPolicy]:
    """The geometric family of the run's val scores, which is not kept."""
    from hdkd_cli.evaluation.calibration import fit_policy

    try:
        scores = run.scores("val")
    except ArtifactError as problem:
        talk.warning(f"{run.path}: no policy can be fitted ({problem})")
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
