"""``hdkd export``: a network that leaves early, without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hdkd_cli.choices import ExportPrecision, ExportTarget
from hdkd_cli.commands import options
from hdkd_cli.commands.inputs import open_run, policy_option
from hdkd_cli.ui.output import emit


def export(
    run: options.OneRunArgument,
    to: Annotated[
        ExportTarget,
        typer.Option("--to", help="Format of the programs; web: a page that runs one."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="New folder to write.")
    ],
    policy: options.PolicyOption = None,
    budget: options.BudgetOption = None,
    allow_mismatch: options.AllowMismatchOption = False,
    single_file: Annotated[
        bool,
        typer.Option(
            "--single-file",
            help="One ONNX file that stops by itself, with the policy in it, instead of a program "
            "per stage.",
        ),
    ] = False,
    runtime: Annotated[
        Path | None,
        typer.Option(
            "--runtime",
            metavar="PATH",
            help="With --to web: onnxruntime-web, as `npm pack` or `npm install` put it there.",
        ),
    ] = None,
    precision: Annotated[
        ExportPrecision,
        typer.Option(
            "--precision",
            help="How weights are stored; int8 computes in 8 bits too. Below fp32 the policy is "
            "fitted again, and all is measured before and after.",
        ),
    ] = "fp32",
    calibration_images: Annotated[
        int | None,
        typer.Option(
            "--calibration-images",
            min=1,
            metavar="N",
            help="Val images that decide about the ranges of int8 [default: 256].",
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Time the programs and PyTorch on test images (seconds)."),
    ] = False,
    data_dir: options.DataDirOption = None,
    device: options.DeviceOption = None,
    batch_size: options.BatchSizeOption = None,
    form: options.FormatOption = None,
) -> None:
    """Write the network as one program per stage, with its policy, labels and a small runner.

    DIR/run.py classifies images and really leaves early; it needs onnxruntime, numpy and pillow
    (torch for --to pt2), not hdkd. A --single-file serves every budget, in any runtime of ONNX; in
    a batch it computes until the last image has left, so give it one image at a time. --to web
    writes a page that runs such a file in the browser and shows where images leave.
    """
    opened = open_run(
        run,
        data_dir=data_dir,
        device=device,
        batch_size=batch_size,
        allow_mismatch=allow_mismatch,
    )
    record = opened.export(
        to,
        output,
        policy_option(policy),
        budget=budget,
        measure=measure,
        single_file=single_file,
        runtime=runtime,
        precision=precision,
        calibration_images=calibration_images,
    )
    emit(record, form)
