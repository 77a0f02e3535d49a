"""What a network costs in parameters, multiply-accumulates and time, exit by exit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hdkd_cli.choices import RuntimeKind
from hdkd_cli.data import open_data
from hdkd_cli.devices import describe_device, resolve_device
from hdkd_cli.evaluation.operating_point import last_exit
from hdkd_cli.evaluation.policy import ExitPolicy
from hdkd_cli.inference import exit_times, latency
from hdkd_cli.inference.runtime import Runtimes
from hdkd_cli.library.evaluated import Tell, quiet
from hdkd_cli.models.cost import ExitCosts, measure_costs
from hdkd_cli.records.profile import Profile
from hdkd_cli.runs.network import initial_network
from hdkd_cli.settings.datasets import dataset_spec
from hdkd_cli.settings.layers import resolve
from hdkd_cli.settings.networks import BackboneSettings, settings_of_network
from hdkd_cli.settings.pretrained import own_transform
from hdkd_cli.settings.schema import Settings

PROFILE_BATCH_SIZE = 256
"""Images of a throughput measurement: what is measured, not what a run was made with."""
PROFILE_SECONDS = 60.0
"""About how long a profile takes."""
# What a model of a library is profiled for: ImageNet, unless it has a size of its own.
MODEL_SIZE, MODEL_CLASSES = 224, 1000


def profile_network(
    runtimes: Runtimes,
    costs: ExitCosts,
    policy: ExitPolicy | None = None,
    *,
    batch_size: int = PROFILE_BATCH_SIZE,
    seconds: float = PROFILE_SECONDS,
    note: Tell = quiet,
    run: str | None = None,
    preset: str | None = None,
) -> Profile:
    """Size, cost and measured time of every exit of a network.

    Args:
        runtimes: The network.
        costs: Its costs.
        policy: How its exits are read on the way; None: each alone, by its largest probability.
        batch_size: Images of the throughput measurements; halved until there is time for them.
        seconds: About how long to measure.
        note: Told if batches are smaller.
        run: Its run, for the record.
        preset: Its preset, for the record.
    """
    nets = runtimes.all()
    if runtimes.reason is not None:
        note(f"torch alone is measured: {runtimes.reason}")
    size = exit_times.fitting_batch(runtimes.net, batch_size, seconds / 4 / len(nets))
    if size < batch_size:
        note(f"batches of {size} images, not {batch_size}, to end in {seconds:g} s")
    found = policy or last_exit(costs.macs_K)
    one = exit_times.time_to_exits(nets, found, 1, seconds * latency.SHARES["exits_one"])
    many = exit_times.time_to_exits(nets, found, size, seconds * latency.SHARES["exits"])
    return Profile(
        run=run,
        preset=preset,
        device=describe_device(runtimes.device),
        precision="fp32",
        exits=exit_times.profile_exits(costs, one, many),
        runtimes=one.tried + many.tried,
        policy=None,
    )


def profile_preset(
    preset: str,
    *,
    assignments: Sequence[str] = (),
    data_dir: Path | None = None,
    device: str | None = None,
    batch_size: int = PROFILE_BATCH_SIZE,
    seconds: float = PROFILE_SECONDS,
    runtime: RuntimeKind = "auto",
    note: Tell = quiet,
) -> Profile:
    """Size, cost and measured time of every exit of the network a preset would train, untrained.

    Args:
        preset: Its name, a file, or a model of torchvision or timm (``timm:convnext_tiny``), which
            is profiled for 1000 classes.
        assignments: Settings as ``KEY=VALUE``.
        data_dir: Where its images are, should they be needed to know how many classes there are.
        device: What to run on: auto, cpu, cuda, cuda:N or mps; None: auto.
        batch_size: Images of the throughput measurements.
        seconds: About how long to measure.
        runtime: torch, onnx, or auto, which measures both.
        note: Told if batches are smaller.
    """
    settings, classes = _settings_and_classes(preset, assignments, data_dir)
    net = initial_network(settings, num_classes=classes)
    return profile_network(
        Runtimes(net.eval(), resolve_device(device or "auto"), runtime),
        measure_costs(net),
        batch_size=batch_size,
        seconds=seconds,
        note=note,
        preset=preset,
    )


def _settings_and_classes(
    target: str, assignments: Sequence[str], data_dir: Path | None
) -> tuple[Settings, int]:
    flags = {"--data-dir": data_dir and data_dir.absolute()}
    if settings_of_network(target) is BackboneSettings:
        size = own_transform(target).get("image_size", MODEL_SIZE)
        of_model = (f"model.name={target}", f"data.image_size={size}", "data.resize=none")
        found = resolve(assignments=[*of_model, *assignments], flags=flags)
        return found.settings, MODEL_CLASSES
    settings = resolve(target, assignments=assignments, flags=flags).settings
    spec = dataset_spec(settings.data.name)
    classes = spec and spec.num_classes  # else the images must be looked at
    return settings, classes or len(open_data(settings.data).classes)
