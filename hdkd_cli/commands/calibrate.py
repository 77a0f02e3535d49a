"""``hdkd calibrate-thresholds``: from held-out scores to an exit policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hdkd_cli.choices import ConfidenceKind, GuaranteeKind, PolicyKind, RiskKind
from hdkd_cli.commands import options
from hdkd_cli.commands.inputs import score_source
from hdkd_cli.ui.output import emit

COLUMNS = (
    "target_macs", "target_seconds", "val_seconds", "val_macs", "val_top1_pct", "thresholds",
)  # fmt: skip


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
            help="Mean cost to meet: a fraction of the full network (0.4), MACs (30M), or time "
            "per image (3ms, 250us), by the times that `hdkd profile` measured. "
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
            "--delta", metavar="D", help="Probability that the guarantee fails. Default: 0.1."
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
        ConfidenceKind | None,
        typer.Option(
            "--confidence",
            help="What is compared with the thresholds. Default: max-prob; margin for the policy "
            "optimal.",
        ),
    ] = None,
    temperature: Annotated[
        bool,
        typer.Option(
            "--temperature", help="Fit a temperature for each exit first (fitted always does)."
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to write it.")
    ] = None,
    latency: Annotated[
        Path | None,
        typer.Option(
            "--latency",
            metavar="FILE",
            help="A profile (`hdkd profile --format json`) made on the device that is to run the "
            "network; thresholds then save its time. Default for times: the run's last profile.",
        ),
    ] = None,
    batched: Annotated[
        bool,
        typer.Option(
            "--batched", help="Times per image of a profiled batch, not one image at a time."
        ),
    ] = False,
    data_dir: options.DataDirOption = None,
    device: options.DeviceOption = None,
    batch_size: options.BatchSizeOption = None,
    form: options.FormatOption = None,
) -> None:
    """Find confidence thresholds on the val split; write and print the exit policy.

    It goes to RUN/policies/<policy>.json, or to -o FILE.
    """
    source = score_source(run, scores, data_dir=data_dir, device=device, batch_size=batch_size)
    fitted = source.calibrate(
        policy,
        budgets=budget or (),
        target_accuracy=target_accuracy,
        max_risk=max_risk,
        delta=delta,
        guarantee=guarantee,
        loss=loss,
        calibration_scores=calibration_scores,
        split=split,
        combination=combination,
        confidence=confidence,
        temperature=temperature,
        output=output,
        latency=latency,
        batched=batched,
    )
    emit(fitted, form, columns=COLUMNS)
