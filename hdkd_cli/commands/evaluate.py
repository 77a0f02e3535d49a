"""The evaluation verbs: ``scores``, ``eval-anytime``, ``eval-budget``.

All of them are pure functions of scores, which are collected once for a split and kept.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hdkd_cli.commands import options
from hdkd_cli.commands.inputs import open_run, policy_option, score_source
from hdkd_cli.errors import GateError, UsageError
from hdkd_cli.ui.output import chosen_format, emit

if TYPE_CHECKING:
    from hdkd_cli.records.evaluation import Anytime

ANYTIME_COLUMNS = (
    "exit", "macs", "ops", "params", "top1_pct", "top5_pct", "nll", "ece_pct", "auroc",
)  # fmt: skip
BUDGET_COLUMNS = (
    "target_macs", "target_seconds", "expected_seconds", "macs", "ops", "top1_pct", "exit_share",
    "seconds_per_image", "measured_speedup",
)  # fmt: skip


def scores(
    run: options.OneRunArgument,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Where to write them.")
    ],
    split: options.SplitOption = None,
    images: options.ImagesOption = None,
    data_dir: options.DataDirOption = None,
    device: options.DeviceOption = None,
    batch_size: options.BatchSizeOption = None,
) -> None:
    """Write the logits of every exit for a split as a score file; print its path.

    The file is safetensors: logits (K,N,C), labels (N,), macs (K,). Default split: test.
    """
    from hdkd_cli.evaluation.scores import write_scores
    from hdkd_cli.files import led_to

    source = open_run(run, data_dir=data_dir, device=device, batch_size=batch_size)
    write_scores(led_to(output), source.scores(split, images=images))
    sys.stdout.write(f"{output}\n")


def eval_anytime(
    run: options.RunArgument = None,
    scores: options.ScoresOption = None,
    split: options.SplitOption = None,
    images: options.ImagesOption = None,
    combination: options.CombinationOption = None,
    per_class: Annotated[
        bool,
        typer.Option(
            "--per-class",
            help="Also the accuracy on each class, and the last exit's confusion matrix.",
        ),
    ] = False,
    data_dir: options.DataDirOption = None,
    device: options.DeviceOption = None,
    batch_size: options.BatchSizeOption = None,
    fail_under: options.FailUnderOption = None,
    form: options.FormatOption = None,
) -> None:
    """Accuracy of each exit against its cost. Default split: test.

    The fitted combination is fitted on the val split. --fail-under looks at the last exit.
    """
    source = score_source(run, scores, data_dir=data_dir, device=device, batch_size=batch_size)
    record = source.anytime(
        split, images=images, combination=combination or "single", by_class=per_class
    )
    if record.per_class and chosen_format(form) == "table":
        emit(record.model_copy(update={"per_class": (), "confusion": ()}), form,
             columns=ANYTIME_COLUMNS)  # fmt: skip
        emit(_class_rows(record), form)
    else:
        emit(record, form, columns=ANYTIME_COLUMNS)
    _gate(record.exits[-1].top1_pct, fail_under, "the last exit")


def _class_rows(record: Anytime) -> Iterator[dict[str, object]]:
    """Each class for people: its accuracy, and what it is most often taken for."""
    from hdkd_cli.evaluation.anytime import most_often_taken_for

    for one, count_C in zip(record.per_class, record.confusion, strict=True):
        often, count = most_often_taken_for(one.label, count_C)
        yield {
            "class": one.class_name,
            "samples": one.samples,
            "top1_pct": one.top1_pct,
            "taken for": f"{record.per_class[often].class_name} ({count})" if count else None,
        }


def eval_budget(
    run: options.RunArgument = None,
    scores: options.ScoresOption = None,
    policy: options.PolicyOption = None,
    split: options.SplitOption = None,
    images: options.ImagesOption = None,
    measured: Annotated[
        bool,
        typer.Option(
            "--measured", help="Also run every point on some of the images, and time it (a minute)."
        ),
    ] = False,
    allow_mismatch: options.AllowMismatchOption = False,
    data_dir: options.DataDirOption = None,
    device: options.DeviceOption = None,
    batch_size: options.BatchSizeOption = None,
    fail_under: options.FailUnderOption = None,
    form: options.FormatOption = None,
) -> None:
    """Accuracy and mean cost when samples leave early. Default split: test.

    --fail-under looks at the policy's most accurate point.
    """
    if policy == "-" and run == "-":
        raise UsageError("only one of RUN and --policy can be read from stdin")
    source = score_source(
        run,
        scores,
        data_dir=data_dir,
        device=device,
        batch_size=batch_size,
        allow_mismatch=allow_mismatch,
    )
    record = source.evaluate(policy_option(policy), split, images=images, measured=measured)
    emit(record, form, columns=BUDGET_COLUMNS)
    _gate(record.best.top1_pct, fail_under, "the policy's best point")


def _gate(top1_pct: float, fail_under: float | None, what: str) -> None:
    """Raise GateError if an accuracy falls short."""
    if fail_under is not None and top1_pct < fail_under:
        raise GateError(f"{what} has {top1_pct:.2f} %, --fail-under asks for {fail_under:g} %")
