"""``hdkd doctor``: can this machine train?"""

from __future__ import annotations

import os
import platform
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hdkd_cli.commands.options import FormatOption, SetOption
from hdkd_cli.errors import ArtifactError, UsageError
from hdkd_cli.ui.output import emit

if TYPE_CHECKING:
    import torch

    from hdkd_cli.records.doctor import DoctorCheck

LITTLE_DISK_BYTES = 2 << 30  # a few checkpoints of a large network
NETWORK_CLASSES = 10  # of a network that is checked
SELF_TEST_TOLERANCE = 1e-3  # relative; float32 must pass too (mps)
REQUIREMENT = re.compile(r'([\w.-]+)\s*>=\s*([\d.]+)(?:.*extra == ["\'](\w+)["\'])?')

Probe = tuple[str, Callable[[], str]]  # what is checked, and how: returns what was found


class _Concern(Exception):
    """Worth knowing, but nothing that is needed is broken."""


def doctor(
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            metavar="PACKAGE.MODULE:FACTORY",
            help="Check instead that a network of your own keeps its contract.",
        ),
    ] = None,
    assignments: SetOption = None,
    form: FormatOption = None,
) -> None:
    """Check packages, devices, disk, presets and arithmetic; exit code 3 if one is broken.

    With --network, a network: that forward is its stages, that samples can leave early, that both
    ways of differentiating agree, and more. --set then gives model.exits, model.options.NAME and
    data.image_size.
    """
    from hdkd_cli.records.doctor import Doctor

    if network is not None:
        checks = tuple(_network(network, assignments or ()))
    elif assignments:
        raise UsageError("--set goes with --network")
    else:
        checks = tuple(_check(name, probe) for name, probe in _probes())
    healthy = all(check.status != "error" for check in checks)
    emit(Doctor(healthy=healthy, checks=checks), form, columns=("check", "status", "detail"))
    if not healthy:
        raise typer.Exit(ArtifactError.exit_code)


def _check(name: str, probe: Callable[[], str]) -> DoctorCheck:
    from hdkd_cli.records.doctor import DoctorCheck

    status: Literal["ok", "warning", "error"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what libraries deprecate is their own business
            status, detail = "ok", probe()
    except _Concern as concern:
        status, detail = "warning", str(concern)
    except Exception as problem:  # whatever breaks here is the finding
        status, detail = "error", f"{type(problem).__name__}: {problem}"
    return DoctorCheck(check=name, status=status, detail=detail)


def _network(factory: str, assignments: Sequence[str]) -> Iterator[DoctorCheck]:
    from hdkd_cli.models import build_model
    from hdkd_cli.records.doctor import DoctorCheck
    from hdkd_cli.settings.layers import resolve
    from hdkd_cli.testing import inspect_network

    settings = resolve(assignments=[f"model.name={factory}", *assignments]).settings
    net = build_model(
        settings.model, num_classes=NETWORK_CLASSES, image_size=settings.data.image_size
    )
    for check in inspect_network(net).checks:
        status: Literal["ok", "error"] = "ok" if check.problem is None else "error"
        yield DoctorCheck(check=check.name, status=status, detail=check.problem or "")


def _probes() -> Iterator[Probe]:
    yield "python", lambda: f"{platform.python_version()} on {platform.platform()}"
    yield from _packages()
    yield "torch and torchvision", _torchvision_fits
    yield "cpu", _cpu
    yield "compiler", _compiler
    yield "disk", _disk
    yield "environment", _environment
    yield "presets", _presets
    yield from _devices()


def _packages() -> Iterator[Probe]:
    from importlib import metadata

    try:
        requirements = metadata.requires("hdkd") or []
    except metadata.PackageNotFoundError:
        return  # run from a checkout: what is missing shows in the other checks
    for match in filter(None, map(REQUIREMENT.match, requirements)):
        name, minimum, extra = match.groups()
        if extra != "dev":
            yield name, partial(_package, name, minimum, extra)


def _package(name: str, minimum: str, extra: str | None) -> str:
    from importlib import metadata

    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        if extra is None:
            raise
        raise _Concern(f"not installed (optional: pip install 'hdkd[{extra}]')") from None
    if _numbers(found) < _numbers(minimum):
        raise ArtifactError(f"{found} is too old; {minimum} or later is needed")
    return found


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.partition("+")[0])]


def _torchvision_fits() -> str:
    import torch
    import torchvision

    # Its compiled operators only load beside the torch they were built for.
    box, score = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0])
    torchvision.ops.nms(box, score, 0.5)
    return f"{torch.__version__} and {torchvision.__version__} fit together"


def _cpu() -> str:
    import torch

    from hdkd_cli.devices import cpu_count

    cores = cpu_count()
    threads = torch.get_num_threads()
    found = f"{cores} cores, {threads} threads"
    if threads > cores:
        raise _Concern(f"{found}: more threads than cores are slow; set OMP_NUM_THREADS={cores}")
    busy = round(os.getloadavg()[0]) if hasattr(os, "getloadavg") else 0
    free = max(1, (os.cpu_count() or 1) - busy)
    if threads > free:
        raise _Concern(
            f"{found}, {busy} busy in the last minute: threads wait for the one that has no core "
            f"of its own; set OMP_NUM_THREADS={free}"
        )
    return found


def _compiler() -> str:
    from hdkd_cli.models.fused import Unavailable, compiler, library

    try:
        command = " ".join(compiler())
    except Unavailable:
        raise _Concern(
            "no C++ compiler: a CPU trains slower, and training.compile cannot be used on one"
        ) from None
    try:
        library()
    except Unavailable as reason:
        raise _Concern(f"a CPU trains slower: {reason}") from None
    return f"{command}; BatchNorm and ReLU are one operator in NHWC"


def _disk() -> str:
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    found = f"{free / 2**30:.1f} GiB free in {here}"
    if not os.access(here, os.W_OK):
        raise _Concern(f"{here} is not writable; give --runs-dir")
    if free < LITTLE_DISK_BYTES:
        raise _Concern(f"{found}: little for checkpoints")
    return found


def _environment() -> str:
    from hdkd_cli.settings.layers import resolve

    origins = resolve().origin.values()
    names = sorted(origin.split()[1] for origin in origins if origin.startswith("environment "))
    return f"sets {', '.join(dict.fromkeys(names))}" if names else "sets nothing"


def _presets() -> str:
    from hdkd_cli.settings import presets
    from hdkd_cli.settings.layers import resolve

    names = presets.names()
    for name in names:
        resolve(name, environment={})
    if presets.DEFAULT not in names:
        raise ArtifactError(f"{presets.folder()}: preset {presets.DEFAULT} is missing")
    return f"{len(names)} in {presets.folder()}"


def _devices() -> Iterator[Probe]:
    try:
        import torch
    except (ImportError, OSError):
        return  # "torch and torchvision" tells

    devices = [torch.device("cpu")]
    devices += [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append(torch.device("mps"))
    for device in devices:
        yield f"arithmetic on {device}", partial(_self_test, device)


def _self_test(device: torch.device) -> str:
    """Compare a gradient with the forward-mode derivative, which learned weights rest upon."""
    import torch
    from torch import Tensor, nn
    from torch.func import functional_call, grad, jvp

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
        )  # fmt: skip
        images, labels = torch.randn(4, 3, 8, 8).to(device), torch.arange(4).to(device)
        direction = {name: torch.randn_like(p).to(device) for name, p in net.named_parameters()}
    weights = {name: p.detach().to(device) for name, p in net.named_parameters()}
    exact = torch.float32 if device.type == "mps" else torch.float64  # no TF32 on CUDA

    def loss(weights: dict[str, Tensor]) -> Tensor:
        logits = functional_call(net, weights, images.to(next(iter(weights.values())).dtype))
        return nn.functional.cross_entropy(logits.to(exact), labels)

    def slope(weights: dict[str, Tensor]) -> float:
        gradient = grad(loss)(weights)
        return float(sum((gradient[name] * direction[name]).sum() for name in weights))

    exact_weights = {name: weight.to(exact) for name, weight in weights.items()}
    exact_direction = {name: tangent.to(exact) for name, tangent in direction.items()}
    backward = slope(exact_weights)
    forward = float(jvp(loss, (exact_weights,), (exact_direction,))[1])
    if not abs(forward - backward) <= SELF_TEST_TOLERANCE * abs(backward):
        raise ArtifactError(f"derivatives differ: {forward} forward, {backward} backward")

    works = []
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        if name == "fp16" and device.type != "cuda":
            continue  # training.precision = "fp16" needs CUDA
        with torch.autocast(device.type, dtype):
            low = slope(weights)
        if abs(low - backward) <= 0.1 * abs(backward):
            works.append(name)
    return ", ".join([_description(device), "forward and backward agree", *works])


def _description(device: torch.device) -> str:
    import torch

    if device.type != "cuda":
        return platform.machine()
    properties: Any = torch.cuda.get_device_properties(device)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
