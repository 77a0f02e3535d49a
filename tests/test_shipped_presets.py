"""Every preset that ships resolves, builds its network, and has the published size of it."""

import json
from pathlib import Path

import pytest
import torch

from hdkd_cli.models.build import build_model
from hdkd_cli.models.cost import measure_costs
from hdkd_cli.settings import presets
from hdkd_cli.settings.layers import resolve

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "presets").rglob("*.toml"))
COSTS = {
    name: row
    for file in ("msdnet_costs.json", "ranet_costs.json")
    for name, row in json.loads((ROOT / "tests/models/data" / file).read_text()).items()
}
NETWORKS = {  # preset → network, where names differ
    "cifar100-small": "cifar100-msdnet5-small",
    "cifar100-ranet6": "cifar100-ranet-6",
    "cifar100-ranet8": "cifar100-ranet-8",
    "imagenet-ranet8": "imagenet-ranet-8",
}


def test_all_presets_are_found():
    assert len(FILES) == 12
    assert {path.stem for path in FILES} == set(presets.names())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_preset_builds_what_it_says(path):
    settings = resolve(path.stem, environment={}).settings
    info = presets.read(path.stem).info
    assert info is not None
    assert info.summary
    assert info.source
    classes = {"cifar100": 100, "imagenet": 1000}.get(settings.data.name, 10)
    with torch.device("meta"):
        net = build_model(settings.model, num_classes=classes, image_size=settings.data.image_size)
    known = COSTS.get(NETWORKS.get(path.stem, path.stem))
    if known is None:  # digits, CIFAR-10 and folders have other numbers of classes
        assert classes == 10
        return
    costs = measure_costs(net)
    assert list(costs.params_K) == known["params"]
    assert list(costs.macs_K) == known.get("macs_lazy", known.get("macs"))
    assert settings.objective.teachers == "later"
    assert settings.weights.learned


def test_the_papers_protocol():
    settings = resolve("cifar100-msdnet7", environment={}).settings
    assert (settings.training.epochs, settings.training.batch_size) == (300, 128)
    assert settings.data.val_per_class == 50  # 5,000 of the 50,000
    assert (settings.optimizer.lr, settings.optimizer.momentum) == (0.1, 0.9)
    assert settings.optimizer.weight_decay == 1e-4
    assert settings.schedule.milestones == (0.5, 0.75)
    imagenet = resolve("imagenet-msdnet5-step4", environment={}).settings
    assert (imagenet.training.epochs, imagenet.training.batch_size) == (90, 1024)
    drops = [round(90 * m) for m in imagenet.schedule.milestones]
    assert (drops, round(90 * imagenet.schedule.warmup)) == ([30, 60], 5)
