"""``hdkd predict``: classify images, leaving early."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hdkd_cli.choices import OutputFormat
from hdkd_cli.commands import options
from hdkd_cli.commands.inputs import open_run, policy_option
from hdkd_cli.errors import DataError, GateError, UsageError
from hdkd_cli.ui.console import talk
from hdkd_cli.ui.output import emit

if TYPE_CHECKING:
    from hdkd_cli.data.sources.base import FolderSource
    from hdkd_cli.records.prediction import Prediction

COLUMNS = ("image", "class", "exit", "confidence", "macs")


def predict(
    run: options.OneRunArgument,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMAGE|FOLDER|-]...",
            help="Image files; folders, searched to any depth; or - for paths on stdin.",
            show_default=False,
        ),
    ] = None,
    labelled: options.ImagesOption = None,
    policy: options.PolicyOption = None,
    budget: options.BudgetOption = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Images that cannot be read are no failure.")
    ] = False,
    regroup: Annotated[
        bool,
        typer.Option(
            "--regroup",
            help="Let samples wait before each stage until a full batch is there: more images per "
            "second on a GPU or in small batches, answers come later.",
        ),
    ] = False,
    top: Annotated[
        int,
        typer.Option("--top", metavar="K", min=0, help="Also list the K most probable classes."),
    ] = 0,
    audit: Annotated[
        float | None,
        typer.Option(
            "--audit",
            metavar="SHARE",
            help="Send a random share of the images (0.02) to the last exit besides, and tell if "
            "the policy's promise about answers or cost does not hold any more.",
        ),
    ] = None,
    audit_state: Annotated[
        Path | None,
        typer.Option("--audit-state", metavar="FILE", help="Keep what was seen between calls."),
    ] = None,
    max_risk: Annotated[
        float | None,
        typer.Option(
            "--max-risk",
            metavar="E",
            help="The promise to hold it to: share of answers that differ from the last exit's. "
            "Default: the policy's guarantee.",
        ),
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option(
            "--delta",
            metavar="D",
            help="Probability of an alarm if all is well. Default: the policy's, or 0.1.",
        ),
    ] = None,
    fail_on_drift: Annotated[
        bool, typer.Option("--fail-on-drift", help="End with exit code 5 after an alarm.")
    ] = False,
    allow_mismatch: options.AllowMismatchOption = False,
    data_dir: options.DataDirOption = None,
    device: options.DeviceOption = None,
    runtime: options.RuntimeOption = "auto",
    batch_size: options.BatchSizeOption = None,
    form: Annotated[
        OutputFormat | None, typer.Option("--format", help="Default: jsonl, as batches are done.")
    ] = None,
) -> None:
    """Classify images; each leaves the network as soon as its policy lets it.

    One line per image, in the order of the images. Without --budget: the policy's most accurate
    point; without any policy: the last exit. --data-dir is needed only if
    --budget has to be solved for and the run has moved. With --images, each line also names the
    folder that an image lies in, its true class.
    """
    _refuse_stdin_twice(run, images or [], policy)
    if (labelled is None) == (not images):
        raise UsageError("give images or folders, - for paths on stdin, or --images FOLDER")
    from hdkd_cli.evaluation.audit import Auditing
    from hdkd_cli.inference.arriving import image_files, lines_of

    if audit is None and (audit_state, max_risk, delta, fail_on_drift) != (None, None, None, False):
        raise UsageError(
            "--audit-state, --max-risk, --delta and --fail-on-drift are about an audit",
            hint="add --audit 0.02",
        )
    auditing = None if audit is None else Auditing(audit, max_risk, delta, audit_state)

    opened = open_run(
        run,
        data_dir=data_dir,
        device=device,
        batch_size=batch_size,
        allow_mismatch=allow_mismatch,
        runtime=runtime,
    )
    truth = {} if labelled is None else _classes_of(opened.labelled(labelled).source)
    names: Iterable[str] = (
        lines_of(sys.stdin.fileno()) if images == ["-"] else image_files(images or truth)
    )
    bad: list[DataError] = []

    def refused(problem: DataError) -> None:
        bad.append(problem)
        talk.warning(str(problem))

    predictor = opened.predictor(
        policy_option(policy), budget=budget, regroup=regroup, top=top, audit=auditing
    )
    watch, right = predictor.watch, Counter[bool]()
    predictions = predictor.files(names, refused)
    if truth:
        predictions = _compared(predictions, truth, right)
    columns = (*COLUMNS, "truth") if truth else COLUMNS
    try:
        emit(_flushed(predictions), form or "jsonl", columns=columns)
    finally:
        if watch is not None:
            watch.keep()
    talk.note(predictor.summary())
    if right:
        talk.note(f"right about {right[True]:,} of {right.total():,}")
    if watch is not None:
        talk.note(watch.summary())
    if bad and not skip_bad:
        raise DataError(
            f"{len(bad)} of {len(bad) + predictor.done} images could not be read "
            "(--skip-bad makes that no failure)"
        )
    if watch is not None and watch.alarms and fail_on_drift:
        raise GateError(f"the policy's promise is broken ({', '.join(watch.alarms)})")


def _classes_of(source: FolderSource) -> dict[str, str]:
    """Path of each image → the name of its class."""
    labels = source.labels_N.tolist()
    return {
        str(source.root / key): source.classes[label]
        for key, label in zip(source.keys, labels, strict=True)
    }


def _compared(
    predictions: Iterable[Prediction], truth: Mapping[str, str], right: Counter[bool]
) -> Iterator[Prediction]:
    """Each with its true class; ``right`` counts how many agree."""
    for prediction in predictions:
        label = truth[prediction.image or ""]
        right[label == prediction.class_name] += 1
        yield prediction.model_copy(update={"truth": label})


def _flushed(predictions: Iterable[Prediction]) -> Iterator[Prediction]:
    """Each line reaches the reader of a pipe while the next image is awaited."""
    for prediction in predictions:
        yield prediction
        sys.stdout.flush()


def _refuse_stdin_twice(run: str, images: list[str], policy: str | None) -> None:
    if "-" in images and len(images) > 1:
        raise UsageError("- reads the paths of all images from stdin: no others with it")
    if [run, policy, *images].count("-") > 1:
        raise UsageError("only one of RUN, --policy and the images can be read from stdin")
