"""``hdkd profile``: parameters, costs and measured time of every exit, and of a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hdkd_cli.commands import options
from hdkd_cli.commands.inputs import open_run, policy_option
from hdkd_cli.errors import UsageError
from hdkd_cli.ui.console import talk
from hdkd_cli.ui.output import emit

COLUMNS = (
    "exit", "params", "macs", "macs_eager", "ops", "latency_ms", "throughput_images_per_s",
)  # fmt: skip
# The batch-size default of this verb alone: what is measured, not what a run was made with.
BATCH_SIZE = 256


def profile(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN|PRESET|MODEL",
            help="Run folder, -, preset, or a model such as timm:convnext_tiny.",
            show_default=False,
        ),
    ],
    assignments: options.SetOption = None,
    policy: options.PolicyOption = None,
    budget: options.BudgetOption = None,
    split: options.SplitOption = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, help="About how long to measure.")
    ] = 60,
    allow_mismatch: options.AllowMismatchOption = False,
    data_dir: options.DataDirOption = None,
    device: options.DeviceOption = None,
    runtime: options.RuntimeOption = "auto",
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Images of the throughput measurements.")
    ] = BATCH_SIZE,
    form: options.FormatOption = None,
) -> None:
    """Size, cost and measured time of every exit; with a policy, what it gains and should gain.

    A preset is profiled with fresh weights; so is a model of torchvision or timm, with its own
    image size and 1000 classes. A run's policy is timed on its test images, against the full
    network. Batches too large for --seconds are halved.
    """
    from hdkd_cli.library.profile import profile_preset

    if target != "-" and not Path(target).is_dir():
        if policy is not None or budget is not None:
            raise UsageError(f"{target}: --policy and --budget need a run, not a preset")
        record = profile_preset(
            target,
            assignments=assignments or (),
            data_dir=data_dir,
            device=device,
            batch_size=batch_size,
            seconds=seconds,
            runtime=runtime,
            note=talk.note,
        )
    else:
        if assignments:
            raise UsageError(f"{target}: is a run, whose settings --set cannot change")
        run = open_run(
            target,
            data_dir=data_dir,
            device=device,
            batch_size=batch_size,
            allow_mismatch=allow_mismatch,
            runtime=runtime,
        )
        record = run.profile(
            policy_option(policy),
            budget=budget,
            split=split,
            seconds=seconds,
            batch_size=batch_size,
        )
    emit(record, form, columns=COLUMNS)
    if (under := record.policy) is not None:
        talk.note(
            f"leaving early, {under.images_per_s:,.0f} images/s instead of "
            f"{under.full_images_per_s:,.0f}: {under.realised_speedup:.2f} times as fast, "
            f"where multiply-accumulates promise {under.theoretical_speedup:.2f} and the time "
            f"of the stages {under.stage_time_speedup:.2f}; the last exit alone would reach "
            f"{under.last_exit_images_per_s:,.0f}"
        )
