"""The evaluation verbs: ``scores``, ``eval-anytime``, ``calibrate-thresholds``, ``eval-budget``.

All of them are pure functions of scores, which are collected once for a split and kept.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hdkd_cli.commands import options
from hdkd_cli.commands.inputs import (
    Source,
    open_run,
    read_calibration,
    read_policy_option,
    read_source,
    scores_of,
)
from hdkd_cli.errors import GateError, UsageError
from hdkd_cli.ui.console import talk
from hdkd_cli.ui.output import emit

if TYPE_CHECKING:
    from hdkd_cli.data import Role
    from hdkd_cli.evaluation.scores import Scores

ANYTIME_COLUMNS = (
    "exit", "macs", "ops", "params", "top1_pct", "top5_pct", "nll", "ece_pct", "auroc",
)  # fmt: skip
POLICY_COLUMNS = ("target_macs", "val_macs", "val_top1_pct", "thresholds")
BUDGET_COLUMNS = ("target_macs", "macs", "ops", "top1_pct", "exit_share")

PolicyName = Literal["geometric", "optimal", "risk"]
DELTA = 0.1

OutputOption = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to write it.")
]


def scores(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Run folder, or -.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Where to write them.")
    ],
    split: options.SplitOption = None,
    data_dir: options.DataDirOption = None,
    device: options.DeviceOption = None,
    batch_size: options.BatchSizeOption = None,
) -> None:
    """Write the logits of every exit for a split as a score file; print its path.

    The file is safetensors: logits (K,N,C), labels (N,), macs (K,). Default split: test.
    """
    from hdkd_cli.evaluation.scores import write_scores

    role: Role = split or "test"
    collected = scores_of(
        open_run(run), role, data_dir=data_dir, device=device, batch_size=batch_size
    )
    write_scores(output, collected)
    sys.stdout.write(f"{output}\n")


def eval_anytime(
    run: options.RunArgument = None,
    scores: options.ScoresOption = None,
    split: options.SplitOption = None,
    combination: options.CombinationOption = None,
    data_dir: options.DataDirOption = None,
    device: options.DeviceOption = None,
    batch_size: options.BatchSizeOption = None,
    fail_under: options.FailUnderOption = None,
    form: options.FormatOption = None,
) -> None:
    """Accuracy of each exit against its cost. Default split: test.

    The fitted combination is fitted on the val split. --fail-under looks at the last exit.
    """
    from hdkd_cli.evaluation.anytime import anytime_record
    from hdkd_cli.evaluation.calibration import fit_combination
    from hdkd_cli.settings.schema import EvaluationSettings

    source = read_source(
        run, scores, split, "test", data_dir=data_dir, device=device, batch_size=batch_size
    )
    settings = source.run.settings().evaluation if source.run else EvaluationSettings()
    held_out = source.scores
    if combination == "fitted":
        held_out = _val_scores(
            source, split, data_dir=data_dir, device=device, batch_size=batch_size
        )
    record = anytime_record(
        source.scores,
        *fit_combination(held_out, combination or "single", temperature=False),
        ece_bins=settings.ece_bins,
        run=source.name,
    )
    emit(record, form, rows="exits", columns=ANYTIME_COLUMNS)
    _gate(record["exits"][-1]["top1_pct"], fail_under, "the last exit")


def _val_scores(
    source: Source,
    split: str | None,
    *,
    data_dir: Path | None,
    device: str | None,
    batch_size: int | None,
) -> Scores:
    """What a combination is fitted on before it is evaluated on ``source``."""
    if source.scores.meta.get("split", split) == "val":
        talk.warning("the combination is evaluated on the samples it was fitted on: too favourable")
        return source.scores
    if source.run is None:
        raise UsageError(
            "--combination fitted: it is fitted on val, and these scores are not (or do not say "
            "so: --split val does); give RUN, or calibrate a policy on val scores"
        )
    return scores_of(source.run, "val", data_dir=data_dir, device=device, batch_size=batch_size)


def calibrate_thresholds(
    run: options.RunArgument = None,
    scores: options.ScoresOption = None,
    policy: Annotated[
        PolicyName | None,
        typer.Option(
            "--policy",
            help="How thresholds are found: the published family, a search for more accuracy at a "
            "cost, or a guarantee. Default: geometric; risk with --max-risk.",
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            metavar="B",
            help="Mean cost to meet: a fraction of the full network (0.4) or MACs (30M). "
            "May be repeated. Without: a family of operating points (geometric: the 39 published).",
        ),
    ] = None,
    target_accuracy: Annotated[
        float | None,
        typer.Option(
            "--target-accuracy",
            metavar="PCT",
            min=0,
            max=100,
            help="The cheapest point of the family that is this accurate on val.",
        ),
    ] = None,
    max_risk: Annotated[
        float | None,
        typer.Option(
            "--max-risk",
            metavar="E",
            help="The fastest point whose risk is guaranteed to be at most E (0.05 is 5 %). "
            "Needs a calibration split.",
        ),
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option(
            "--delta", metavar="D", help=f"Probability that the guarantee fails. Default: {DELTA}."
        ),
    ] = None,
    guarantee: Annotated[
        Literal["ltt", "crc"] | None,
        typer.Option(
            "--guarantee",
            help="Whether the risk is bounded with probability 1 - D (ltt, the default) or on "
            "average (crc).",
        ),
    ] = None,
    loss: Annotated[
        Literal["disagreement", "accuracy-gap"] | None,
        typer.Option(
            "--loss",
            help="The risk is the share of answers that differ from the last exit's (the default), "
            "or the accuracy lost against it.",
        ),
    ] = None,
    calibration_scores: Annotated[
        Path | None,
        typer.Option(
            "--calibration-scores",
            metavar="FILE",
            help="With --scores: scores of samples used for nothing else, for --max-risk.",
        ),
    ] = None,
    split: options.SplitOption = None,
    combination: options.CombinationOption = None,
    confidence: Annotated[
        Literal["max-prob", "entropy", "margin"],
        typer.Option("--confidence", help="What is compared with the thresholds."),
    ] = "max-prob",
    temperature: Annotated[
        bool,
        typer.Option(
            "--temperature", help="Fit a temperature for each exit first (fitted always does)."
        ),
    ] = False,
    output: OutputOption = None,
    data_dir: options.DataDirOption = None,
    device: options.DeviceOption = None,
    batch_size: options.BatchSizeOption = None,
    form: options.FormatOption = None,
) -> None:
    """Find confidence thresholds on the val split; write and print the exit policy.

    It goes to RUN/policies/<policy>.json, or to -o FILE.
    """
    from hdkd_cli.evaluation import calibration
    from hdkd_cli.evaluation.budget import parse_budget
    from hdkd_cli.evaluation.policy import write_policy

    if split == "test":
        raise UsageError("--split test: the test split is for evaluation only; calibrate on val")
    kind = policy or ("geometric" if max_risk is None else "risk")
    _refuse_contradictions(kind, budget, target_accuracy, max_risk)
    if kind == "risk":
        _refuse_no_probability(max_risk, delta, guarantee)
    elif (delta, guarantee, loss, calibration_scores) != (None,) * 4:
        raise UsageError(
            "--delta, --guarantee, --loss and --calibration-scores are about a guarantee: "
            "give --max-risk too"
        )
    source = read_source(
        run, scores, split, "val", data_dir=data_dir, device=device, batch_size=batch_size
    )
    combined = combination or calibration.DEFAULT_COMBINATION[kind]
    if max_risk is not None:
        fitted = calibration.calibrate_risk(
            source.scores,
            read_calibration(
                source,
                calibration_scores,
                data_dir=data_dir,
                device=device,
                batch_size=batch_size,
            ),
            combination=combined,
            confidence=confidence,
            temperature=temperature,
            guarantee=guarantee or "ltt",
            loss=loss or "disagreement",
            epsilon=max_risk,
            delta=delta or DELTA,
        )
        assert fitted.guarantee is not None
        talk.note(fitted.guarantee.statement)
        if all(t is None for t in fitted.points[0].thresholds):
            talk.warning(
                f"with {fitted.guarantee.n} calibration samples nothing faster is safe: all images "
                "take the last exit; set more aside, or allow a larger --max-risk"
            )
    else:
        search = calibration.calibrate_optimal
        if kind == "geometric":
            search = calibration.calibrate_geometric
        fitted = search(
            source.scores,
            combination=combined,
            confidence=confidence,
            temperature=temperature,
            budgets_macs=[parse_budget(text, source.scores.macs_K[-1]) for text in budget or ()],
        )
        if target_accuracy is not None:
            fitted = fitted.model_copy(update={"points": (fitted.cheapest(target_accuracy),)})
    if output is not None:
        write_policy(output, fitted)
    elif source.run is not None:
        source.run.keep_policy(kind, fitted.as_record())
    emit(fitted.as_record(), form, rows="points", columns=POLICY_COLUMNS)


def _refuse_contradictions(
    kind: PolicyName,
    budget: list[str] | None,
    target_accuracy: float | None,
    max_risk: float | None,
) -> None:
    """One wish at a time, and one that the kind of policy can fulfil."""
    wishes = {"--budget": budget, "--target-accuracy": target_accuracy, "--max-risk": max_risk}
    given = [name for name, value in wishes.items() if value not in (None, [])]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)}: give one of them")
    if kind == "risk" and given != ["--max-risk"]:
        raise UsageError("--policy risk: give --max-risk E, the risk to guarantee (0.05 is 5 %)")
    if kind != "risk" and max_risk is not None:
        raise UsageError(f"--max-risk: only --policy risk guarantees one, not {kind}")


def _refuse_no_probability(
    max_risk: float | None, delta: float | None, guarantee: str | None
) -> None:
    """ε and δ lie strictly between 0 and 1; CRC has no δ."""
    for name, value in {"--max-risk": max_risk, "--delta": delta}.items():
        if value is not None and not 0 < value < 1:
            raise UsageError(f"{name} {value:g}: give a number between 0 and 1, such as 0.05")
    if guarantee == "crc" and delta is not None:
        raise UsageError("--delta: crc bounds the risk on average and has none; drop one of them")


def eval_budget(
    run: options.RunArgument = None,
    scores: options.ScoresOption = None,
    policy: options.PolicyOption = None,
    split: options.SplitOption = None,
    allow_mismatch: Annotated[
        bool,
        typer.Option("--allow-mismatch", help="Apply a policy fitted on another checkpoint."),
    ] = False,
    data_dir: options.DataDirOption = None,
    device: options.DeviceOption = None,
    batch_size: options.BatchSizeOption = None,
    fail_under: options.FailUnderOption = None,
    form: options.FormatOption = None,
) -> None:
    """Accuracy and mean cost when samples leave early. Default split: test.

    --fail-under looks at the policy's most accurate point.
    """
    from hdkd_cli.evaluation.compatibility import check_policy
    from hdkd_cli.evaluation.simulate import budget_record

    if policy == "-" and run == "-":
        raise UsageError("only one of RUN and --policy can be read from stdin")
    source = read_source(
        run, scores, split, "test", data_dir=data_dir, device=device, batch_size=batch_size
    )
    chosen = read_policy_option(policy, source.run)
    for warning in check_policy(chosen, source.scores, allow_mismatch=allow_mismatch):
        talk.warning(warning)
    record = budget_record(chosen, source.scores, run=source.name)
    emit(record, form, rows="points", columns=BUDGET_COLUMNS)
    _gate(max(p["top1_pct"] for p in record["points"]), fail_under, "the policy's best point")


def _gate(top1_pct: float, fail_under: float | None, what: str) -> None:
    """Raise GateError if an accuracy falls short."""
    if fail_under is not None and top1_pct < fail_under:
        raise GateError(f"{what} has {top1_pct:.2f} %, --fail-under asks for {fail_under:g} %")
