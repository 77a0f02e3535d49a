"""``hdkd calibrate-thresholds``: from held-out scores to an exit policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hdkd_cli.choices import ConfidenceKind, GuaranteeKind, PolicyKind, RiskKind
from hdkd_cli.commands import options
from hdkd_cli.commands.inputs import read_calibration, read_source
from hdkd_cli.errors import UsageError
from hdkd_cli.ui.console import talk
from hdkd_cli.ui.output import emit

COLUMNS = ("target_macs", "val_macs", "val_top1_pct", "thresholds")
DELTA = 0.1


def calibrate_thresholds(
    run: options.RunArgument = None,
    scores: options.ScoresOption = None,
    policy: Annotated[
        PolicyKind | None,
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
        GuaranteeKind | None,
        typer.Option(
            "--guarantee",
            help="Whether the risk is bounded with probability 1 - D (ltt, the default) or on "
            "average (crc).",
        ),
    ] = None,
    loss: Annotated[
        RiskKind | None,
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
        ConfidenceKind,
        typer.Option("--confidence", help="What is compared with the thresholds."),
    ] = "max-prob",
    temperature: Annotated[
        bool,
        typer.Option(
            "--temperature", help="Fit a temperature for each exit first (fitted always does)."
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to write it.")
    ] = None,
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
    from hdkd_cli.files import led_to

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
        write_policy(led_to(output), fitted)
    elif source.run is not None:
        source.run.keep_policy(kind, fitted.as_record())
    emit(fitted, form, columns=COLUMNS)


def _refuse_contradictions(
    kind: PolicyKind,
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
