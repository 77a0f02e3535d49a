"""The evaluation verbs: ``scores``, ``eval-anytime``, ``eval-budget``.

All of them are pure functions of scores, which are collected once for a split and kept.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from hdkd_cli.choices import Role
from hdkd_cli.commands import options
from hdkd_cli.commands.inputs import (
    Source,
    open_run,
    read_policy_option,
    read_source,
    scores_of,
)
from hdkd_cli.errors import GateError, UsageError
from hdkd_cli.ui.console import talk
from hdkd_cli.ui.output import emit

if TYPE_CHECKING:
    from hdkd_cli.evaluation.policy import ExitPolicy
    from hdkd_cli.evaluation.scores import Scores
    from hdkd_cli.records import Budget

ANYTIME_COLUMNS = (
    "exit", "macs", "ops", "params", "top1_pct", "top5_pct", "nll", "ece_pct", "auroc",
)  # fmt: skip
BUDGET_COLUMNS = (
    "target_macs", "macs", "ops", "top1_pct", "exit_share", "seconds_per_image", "measured_speedup",
)  # fmt: skip


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
    from hdkd_cli.files import led_to

    role: Role = split or "test"
    collected = scores_of(
        open_run(run), role, data_dir=data_dir, device=device, batch_size=batch_size
    )
    write_scores(led_to(output), collected)
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
    from hdkd_cli.evaluation.anytime import anytime
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
    record = anytime(
        source.scores,
        *fit_combination(held_out, combination or "single", temperature=False),
        ece_bins=settings.ece_bins,
        run=source.name,
    )
    emit(record, form, columns=ANYTIME_COLUMNS)
    _gate(record.exits[-1].top1_pct, fail_under, "the last exit")


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


def eval_budget(
    run: options.RunArgument = None,
    scores: options.ScoresOption = None,
    policy: options.PolicyOption = None,
    split: options.SplitOption = None,
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
    from hdkd_cli.evaluation.compatibility import check_policy
    from hdkd_cli.evaluation.simulate import budget

    if policy == "-" and run == "-":
        raise UsageError("only one of RUN and --policy can be read from stdin")
    if measured and run is None:
        raise UsageError("--measured runs the network: it needs RUN, not --scores")
    source = read_source(
        run, scores, split, "test", data_dir=data_dir, device=device, batch_size=batch_size
    )
    chosen = read_policy_option(policy, source.run)
    for warning in check_policy(chosen, source.scores, allow_mismatch=allow_mismatch):
        talk.warning(warning)
    record = budget(chosen, source.scores, run=source.name)
    if measured:
        record = _with_seconds(
            record, source, chosen, data_dir=data_dir, device=device, batch_size=batch_size
        )
    emit(record, form, columns=BUDGET_COLUMNS)
    _gate(record.best.top1_pct, fail_under, "the policy's best point")


def _with_seconds(
    record: Budget,
    source: Source,
    policy: ExitPolicy,
    *,
    data_dir: Path | None,
    device: str | None,
    batch_size: int | None,
) -> Budget:
    """Run every point of ``policy`` on some images; add what it took to its row."""
    from hdkd_cli.devices import resolve_device
    from hdkd_cli.evaluation.table import tabulate
    from hdkd_cli.inference.measured import images_in_time, measure_points, unlike_simulation
    from hdkd_cli.inference.of_run import data_of_run, deployed, some_images
    from hdkd_cli.runs.network import trained_network

    run, scores, split = source.run, source.scores, cast("Role", record.split)
    assert run is not None
    where = resolve_device(device or "auto")
    net = deployed(trained_network(run), where).net
    size = batch_size or run.settings().evaluation.batch_size
    data = data_of_run(run, split, None if data_dir is None else str(data_dir))
    count = images_in_time(net, len(policy.points), size)
    places, images = some_images(data, split, count, where)
    result = measure_points(net, policy, images, size)
    table = tabulate(scores, policy.combination, policy.temperatures, policy.confidence)
    if unlike := unlike_simulation(result, policy, table, places):
        talk.warning(
            f"{unlike} of {result.exit_PN.size} exits taken differ from those simulated, by more "
            "than rounding"
        )
    seconds = zip(
        record.points,
        result.seconds_per_image_P.tolist(),
        result.speedup_P.tolist(),
        strict=True,
    )
    points = tuple(
        point.model_copy(update={"seconds_per_image": taken, "measured_speedup": speedup})
        for point, taken, speedup in seconds
    )
    return record.model_copy(update={"points": points})


def _gate(top1_pct: float, fail_under: float | None, what: str) -> None:
    """Raise GateError if an accuracy falls short."""
    if fail_under is not None and top1_pct < fail_under:
        raise GateError(f"{what} has {top1_pct:.2f} %, --fail-under asks for {fail_under:g} %")
