"""Pretrained weights from files, and from the libraries' own caches. Nothing is fetched here."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from cut_networks import backbone, uncut
from safetensors.torch import save_file
from test_backbone import needs_timm, noise

from hdkd_cli.errors import CheckpointError
from hdkd_cli.models.backbone import Backbone, load_pretrained
from hdkd_cli.settings.networks import BackboneSettings

RESNET = "torchvision:resnet18"


def loaded(net: Backbone, name: str, path: Path | str) -> str:
    return load_pretrained(net, BackboneSettings(name=name, pretrained=str(path)))


@pytest.fixture(params=["safetensors", "torch", "wrapped"])
def weights(request, tmp_path) -> Path:
    """A file with the weights of a ResNet for five classes that was not cut."""
    state = uncut(RESNET, seed=1).state_dict()
    path = tmp_path / "weights"
    if request.param == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if request.param == "wrapped" else state, path)
    return path


def test_the_cut_network_says_what_the_pretrained_one_says(weights):
    net = backbone(RESNET)
    heads = [p.clone() for stage in list(net.stages)[:-1] for p in stage.classifier.parameters()]
    note = loaded(net, RESNET, weights)
    assert str(weights) in note
    assert "fresh" not in note
    with torch.no_grad():
        assert torch.equal(net(noise())[-1], uncut(RESNET, seed=1)(noise()))
    after = [p for stage in list(net.stages)[:-1] for p in stage.classifier.parameters()]
    assert all(map(torch.equal, heads, after))


def test_for_other_classes_only_the_last_linear_layer_is_fresh(weights):
    net = backbone(RESNET, num_classes=7, seed=3)
    fresh = net.stages[-1].classifier.fc.weight.clone()
    note = loaded(net, RESNET, weights)
    assert "for 5 classes, so the last head (fc.bias, fc.weight) is fresh, for 7" in note
    assert torch.equal(net.stages[-1].classifier.fc.weight, fresh)
    theirs = uncut(RESNET, seed=1)
    assert torch.equal(net.stages[0].backbone.conv1.weight, theirs.conv1.weight)
    assert torch.equal(net.stages[0].backbone.bn1.running_var, theirs.bn1.running_var)


@needs_timm
def test_position_embeddings_are_resized_as_timm_does_it(tmp_path):
    name = "timm:vit_tiny_patch16_224"
    theirs = uncut(name, size=64, seed=1)
    save_file(theirs.state_dict(), tmp_path / "vit.safetensors")
    import timm

    with torch.no_grad():
        expected = timm.create_model(
            "vit_tiny_patch16_224", num_classes=5, img_size=32, pretrained=True,
            pretrained_cfg_overlay={"state_dict": theirs.state_dict(), "num_classes": 5},
        ).eval()(noise(32))  # fmt: skip
        net = backbone(name, size=32, exits=2)
        loaded(net, name, tmp_path / "vit.safetensors")
        assert torch.equal(net(noise(32))[-1], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer2.0.conv1.weight"), "missing: layer2.0.conv1.weight"),
        (lambda state: state.update(extra=torch.zeros(1)), "of no use: extra"),
        (
            lambda state: state.update({"conv1.weight": torch.zeros(3)}),
            "of another shape: conv1.weight",
        ),
    ],
)
def test_weights_of_another_model_are_refused_by_name(tmp_path, change, message):
    state = uncut(RESNET).state_dict()
    change(state)
    torch.save(state, tmp_path / "weights.pth")
    net = backbone(RESNET)
    before = [p.clone() for p in net.parameters()]
    with pytest.raises(CheckpointError, match=message):
        loaded(net, RESNET, tmp_path / "weights.pth")
    assert all(map(torch.equal, before, net.parameters()))


class Malice:
    def __reduce__(self):
        return (Path("pwned").touch, ())


def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"fc.weight": Malice()}}, "weights.pth")
    with pytest.raises(CheckpointError):
        loaded(backbone(RESNET), RESNET, "weights.pth")
    assert not Path("pwned").exists()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder of torch.hub, and ResNet-18's published file in it: random weights."""
    from torchvision.models import ResNet18_Weights

    state = uncut(RESNET, seed=1, num_classes=1000).state_dict()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    folder = tmp_path / "source"
    folder.mkdir()
    torch.save(state, folder / "w.pth")
    digest = hashlib.sha256((folder / "w.pth").read_bytes()).hexdigest()[:8]

    def publish(checksum: str = digest) -> None:
        path = folder / f"w-{checksum}.pth"
        path.write_bytes((folder / "w.pth").read_bytes())
        object.__setattr__(ResNet18_Weights.DEFAULT.value, "url", path.as_uri())

    original = ResNet18_Weights.DEFAULT.url
    yield publish
    object.__setattr__(ResNet18_Weights.DEFAULT.value, "url", original)


def test_download_is_the_librarys_own_with_its_checksum(hub):
    hub()
    net = backbone(RESNET)
    assert "1000 classes" in loaded(net, RESNET, "download")
    theirs = uncut(RESNET, seed=1, num_classes=1000)
    assert torch.equal(net.stages[0].backbone.conv1.weight, theirs.conv1.weight)


def test_a_download_with_another_checksum_is_refused(hub):
    hub("00000000")
    with pytest.raises(CheckpointError, match=r"could not be fetched .*hash"):
        loaded(backbone(RESNET), RESNET, "download")
