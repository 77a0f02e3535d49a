"""``hdkd profile``: parameters, costs and measured time of every exit, and of a policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hdkd_cli.choices import Role
from hdkd_cli.commands import options
from hdkd_cli.commands.inputs import one_point, open_run, read_policy_option
from hdkd_cli.errors import UsageError
from hdkd_cli.ui.console import talk
from hdkd_cli.ui.output import emit

if TYPE_CHECKING:
    import torch

    from hdkd_cli.inference.of_run import Deployed
    from hdkd_cli.models.contract import MultiExitNet
    from hdkd_cli.records import PolicyProfile
    from hdkd_cli.runs.folder import RunFolder

COLUMNS = (
    "exit", "params", "macs", "macs_eager", "ops", "latency_ms", "throughput_images_per_s",
)  # fmt: skip
# The batch-size default of this verb alone: what is measured, not what a run was made with.
BATCH_SIZE = 256
# What a model of a library is profiled for: ImageNet, unless it has a size of its own.
MODEL_SIZE, MODEL_CLASSES = 224, 1000


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
    from hdkd_cli.devices import describe_device, resolve_device
    from hdkd_cli.inference.latency import fitting_batch, profile_exits
    from hdkd_cli.inference.of_run import deployed
    from hdkd_cli.records import Profile
    from hdkd_cli.runs.network import trained_network

    run = open_run(target) if target == "-" or Path(target).is_dir() else None
    if run is not None and assignments:
        raise UsageError(f"{target}: is a run, whose settings --set cannot change")
    if run is None and (policy is not None or budget is not None):
        raise UsageError(f"{target}: --policy and --budget need a run, not a preset")
    where = resolve_device(device or "auto")
    at = deployed(_fresh(target, assignments or ()) if run is None else trained_network(run), where)
    size = fitting_batch(at.net, batch_size, seconds / 4)
    if size < batch_size:
        talk.note(f"batches of {size} images, not {batch_size}, to end in {seconds:g} s")
    exits = profile_exits(at.net, at.costs, batch_size=size, seconds=seconds)
    under = None
    if run is not None:
        under = _under_policy(
            run,
            at,
            policy,
            budget,
            split=split or "test",
            data_dir=data_dir,
            device=where,
            batch_size=size,
            seconds=seconds,
            allow_mismatch=allow_mismatch,
            images_per_s=exits[-1].throughput_images_per_s,
        )
    record = Profile(
        run=str(run.path) if run else None,
        preset=None if run else target,
        device=describe_device(where),
        precision="fp32",
        exits=exits,
        policy=under,
    )
    emit(record, form, columns=COLUMNS)
    if under is not None:
        talk.note(
            f"leaving early, {under.images_per_s:,.0f} images/s instead of "
            f"{under.full_images_per_s:,.0f}: {under.realised_speedup:.2f} times as fast, "
            f"where multiply-accumulates promise {under.theoretical_speedup:.2f} and the time "
            f"of the stages {under.stage_time_speedup:.2f}"
        )


def _fresh(target: str, assignments: Sequence[str]) -> MultiExitNet:
    """The network a preset would train, untrained; or any model, for 1000 classes."""
    from hdkd_cli.data import open_data
    from hdkd_cli.runs.network import initial_network
    from hdkd_cli.settings.datasets import dataset_spec
    from hdkd_cli.settings.layers import resolve
    from hdkd_cli.settings.networks import BackboneSettings, settings_of_network
    from hdkd_cli.settings.pretrained import own_transform

    if settings_of_network(target) is BackboneSettings:
        size = own_transform(target).get("image_size", MODEL_SIZE)
        of_model = (f"model.name={target}", f"data.image_size={size}", "data.resize=none")
        settings = resolve(assignments=[*of_model, *assignments]).settings
        return initial_network(settings, num_classes=MODEL_CLASSES)
    settings = resolve(target, assignments=assignments).settings
    spec = dataset_spec(settings.data.name)
    classes = spec and spec.num_classes  # else the images must be looked at
    return initial_network(settings, num_classes=classes or len(open_data(settings.data).classes))


def _under_policy(
    run: RunFolder,
    at: Deployed,
    policy: str | None,
    budget: str | None,
    *,
    split: Role,
    data_dir: Path | None,
    device: torch.device,
    batch_size: int,
    seconds: float,
    allow_mismatch: bool,
    images_per_s: float,
) -> PolicyProfile | None:
    """The policy part of the record; None if the run has no policy and none was asked for."""
    from hdkd_cli.evaluation.compatibility import check_checkpoint, check_exits
    from hdkd_cli.inference.latency import images_needed, profile_policy
    from hdkd_cli.inference.of_run import data_of_run, some_images

    if policy is None and budget is None and not (run.policies / "last").exists():
        talk.note("no policy was calibrated yet (`hdkd calibrate-thresholds`): exits only")
        return None
    chosen = read_policy_option(policy, run)
    check_exits(chosen, at.net.num_exits)
    for warning in check_checkpoint(
        chosen, run.checkpoint().model_sha256, str(run.path), allow_mismatch=allow_mismatch
    ):
        talk.warning(warning)
    chosen, point = one_point(
        chosen,
        run,
        budget,
        full_macs=at.costs.macs_K[-1],
        data_dir=data_dir,
        device=str(device),
    )
    data = data_of_run(run, split, None if data_dir is None else str(data_dir))
    count = images_needed(1 / images_per_s, batch_size, seconds)
    return profile_policy(
        at.net,
        at.costs,
        chosen,
        point,
        some_images(data, split, count, device).images_NCHW,
        batch_size=batch_size,
        seconds=seconds,
    )
