"""Arguments and options that several verbs share. None means "not given": defaults are settings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from hdkd_cli.choices import CombinationKind, HeldOut, OutputFormat, RuntimeKind
from hdkd_cli.commands import completion
from hdkd_cli.errors import UsageError


def percentage(text: str) -> float:
    """The per cent that ``95`` and ``95%`` stand for.

    Raises:
        UsageError: it is no percentage, or looks like a fraction.
    """
    number, sign = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise UsageError(f"--fail-under {text}: a percentage from 0 to 100 is needed")
    if 0 < value < 1 and not sign:
        raise UsageError(
            f"--fail-under {text}: is less than one per cent",
            hint=f"write {100 * value:g} for a share of {text}, or {text}% if so little is meant",
        )
    return value


# What to run
PresetArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="PRESET",
        help="Name of a preset, or a TOML file.",
        show_default=False,
        autocompletion=completion.presets,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="TOML file of settings, over the preset."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One setting, such as training.epochs=10, or method=NAME. May be repeated.",
        autocompletion=completion.assignments,
    ),
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of the run.")]

# Where and on what
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps."),
]
RuntimeOption = Annotated[
    RuntimeKind,
    typer.Option(
        "--runtime",
        help="What runs the network: torch; onnx, which is onnxruntime, on a CPU; or auto, the "
        "faster of the two once a trial pays.",
    ),
]
DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", metavar="FOLDER", help="Where the images are.")
]
DownloadOption = Annotated[
    bool | None,
    typer.Option("--download", help="Fetch the images if they are not there (CIFAR)."),
]
BatchSizeOption = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Images per forward pass.")
]

TrustOption = Annotated[
    bool,
    typer.Option("--trust-code", help="Import the code that RUN names: its network or data set."),
]

# What to read
OneRunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Run folder, or -.", show_default=False, autocompletion=completion.runs
    ),
]
RunArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="Run folder, or - to read its path from stdin.",
        show_default=False,
        autocompletion=completion.runs,
    ),
]
ScoresOption = Annotated[
    Path | None,
    typer.Option("--scores", metavar="FILE", help="Score file to read instead of a run."),
]
SplitOption = Annotated[HeldOut | None, typer.Option("--split", help="Which images.")]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="FOLDER",
        help="Other labelled images instead of a split: a folder per class of the run.",
    ),
]
PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="NAME|FILE|-",
        help="Exit policy: of the run by name, a file, or - for stdin; absent: the last one made.",
        autocompletion=completion.policies,
    ),
]
AllowMismatchOption = Annotated[
    bool, typer.Option("--allow-mismatch", help="Apply a policy fitted on another checkpoint.")
]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="B",
        help="Mean cost: a fraction of the full network (0.4), MACs (30M), or time per image "
        "(3ms) if the policy was made for times. Without: its most accurate point.",
    ),
]
CombinationOption = Annotated[
    CombinationKind | None,
    typer.Option(
        "--combination",
        help="How an exit uses the exits before it. Default: single; cost-weighted for the "
        "policies optimal and risk.",
    ),
]

# What to say
FormatOption = Annotated[
    OutputFormat | None,
    typer.Option("--format", help="Default: table on a terminal, json in a pipe."),
]
FailUnderOption = Annotated[
    float | None,
    typer.Option(
        "--fail-under",
        metavar="PCT",
        parser=percentage,
        help="End with exit code 5 if the accuracy is lower, in percent: 95 or 95%.",
    ),
]
