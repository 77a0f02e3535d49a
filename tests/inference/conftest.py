"""A small network that has learned a little, its policy, and both exports of it, made once."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from small_runs import small_settings
from torch import Tensor

from hdkd_cli.data import ImageData, open_data
from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.evaluation.policy import ExitPolicy, FittedOn, OperatingPoint
from hdkd_cli.evaluation.table import ExitTable, tabulate
from hdkd_cli.inference.collect import collect
from hdkd_cli.inference.export import export
from hdkd_cli.inference.exported_network import Network
from hdkd_cli.inference.programs import Programs
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.models.cost import measure_costs
from hdkd_cli.runs.network import initial_network
from hdkd_cli.settings.networks import MSDNetSettings

CPU = torch.device("cpu")


class Learned(NamedTuple):
    net: MultiExitNet
    data: ImageData
    images: Tensor  # 500 digits it was not trained on
    table: ExitTable  # of these images
    policy: ExitPolicy  # one point; by it they leave at all exits


@pytest.fixture(scope="session")
def learned() -> Learned:
    shape = {"growth_factors": (1, 2), "bottleneck_factors": (1, 2), "channels": 8, "growth": 4}
    settings = small_settings(model=MSDNetSettings(exits=3, base=1, step=1, **shape))
    settings = settings.model_copy(
        update={"data": settings.data.model_copy(update={"image_size": 20})}
    )
    data, net = open_data(settings.data), initial_network(settings, num_classes=10)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    stream = data.train_stream(batch_size=50, seed=0, device=CPU, channels_last=False)
    for _, (images, labels) in zip(range(20), stream.batches(), strict=False):
        loss = sum(torch.nn.functional.cross_entropy(z, labels) for z in net(images))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    net.eval()
    batches = data.evaluation_batches("reserve", batch_size=500, device=CPU, channels_last=False)
    batch = next(batches)
    costs = measure_costs(net)
    scores = collect(net, [batch], costs, {})
    combination, temperatures = fixed_combination("mean", costs.macs_K), (1.5, 1.0, 0.7)
    table = tabulate(scores, combination, temperatures, "margin")
    sorted_KN = np.sort(table.confidence_KN)
    thresholds = tuple(float(c[249:251].mean()) for c in sorted_KN[:2])  # between two samples
    point = OperatingPoint(target_macs=None, thresholds=thresholds, val_macs=1.0, val_top1_pct=50.0)
    policy = ExitPolicy(
        kind="geometric",
        confidence="margin",
        combination=combination,
        temperatures=temperatures,
        points=(point,),
        fitted_on=FittedOn(checkpoint_sha256=None, split=None, samples=500),
    )
    return Learned(net, data, batch.images, table, policy)


@pytest.fixture(scope="session")
def onnx_programs(learned: Learned) -> Programs:
    """Its stages in ONNX, as every export of it to ONNX holds them."""
    return programs_of(learned, "onnx")


@pytest.fixture(scope="session", params=["onnx", "pt2"])
def exported(
    request: pytest.FixtureRequest, learned: Learned, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What an export wrote, once for each format."""
    return write_export(learned, request.param, tmp_path_factory)


@pytest.fixture(scope="session")
def network(exported: Path) -> Network:
    return Network(exported, threads=1)


@pytest.fixture(scope="session")
def onnx_folder(learned: Learned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(learned, "onnx", tmp_path_factory)


@pytest.fixture(scope="session")
def single_folder(learned: Learned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(learned, "onnx", tmp_path_factory, single_file=True)


_written: dict[str, Path] = {}
_programs: dict[str, Programs] = {}


def programs_of(learned: Learned, to: str) -> Programs:
    if to == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    if to not in _programs:
        _programs[to] = Programs.of(learned.net, to)
    return _programs[to]


def write_export(
    learned: Learned, to: str, factory: pytest.TempPathFactory, *, single_file: bool = False
) -> Path:
    name = f"{to}-single" if single_file else to
    if name not in _written:
        folder = factory.mktemp("exports") / name
        export(
            learned.net,
            learned.policy,
            learned.data.classes,
            learned.data.settings,
            to=to,
            folder=folder,
            checkpoint_sha256="5" * 64,
            single_file=single_file,
            programs=programs_of(learned, to),
        )
        _written[name] = folder
    return _written[name]
