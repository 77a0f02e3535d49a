"""Published weights: the logits of their own network to the bit, or a refusal that names names."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_nets import ForeignMSDNet, ForeignRANet, random_statistics
from hypothesis import given, settings
from safetensors.torch import save_file
from small_nets import SMALL, SMALL_RANET, ChainStage, msdnet_arguments, ranet_arguments
from torch import nn

from hdkd_cli.errors import CheckpointError, SettingsError
from hdkd_cli.models import MSDNet, MultiExitNet, RANet
from hdkd_cli.models.foreign import read_foreign_state
from hdkd_cli.models.published import published_classes, take_published

few = settings(max_examples=12, deadline=None)
DATA = Path(__file__).parent / "data"
MSDNETS = json.loads((DATA / "msdnet_costs.json").read_text())
RANETS = json.loads((DATA / "ranet_costs.json").read_text())


def both(arguments: dict[str, Any]) -> tuple[nn.Module, MultiExitNet]:
    """Theirs with random weights, and ours without."""
    foreign, ours = (ForeignRANet, RANet) if "scales" in arguments else (ForeignMSDNet, MSDNet)
    torch.manual_seed(0)
    theirs = foreign(**arguments).eval()
    random_statistics(theirs)
    return theirs, ours(**{"init": "torch", **arguments}).eval()


@pytest.mark.parametrize(
    "arguments",
    [
        MSDNETS["cifar100-msdnet7"]["arguments"],
        MSDNETS["cifar100-msdnet5-lin"]["arguments"],
        MSDNETS["imagenet-msdnet5-step4"]["arguments"],
        MSDNETS["imagenet-msdnet5-step7"]["arguments"],
        RANETS["cifar100-ranet-8"]["arguments"],
        RANETS["cifar100-ranet-6-lin"]["arguments"],
        RANETS["imagenet-ranet-8"]["arguments"],
    ],
    ids=lambda a: (
        f"{'ranet' if 'scales' in a else 'msdnet'}-{a['stem']}-{a['step_mode']}-{a['step']}"
    ),
)
def test_published_networks_keep_their_logits_to_the_bit(arguments):
    theirs, ours = both(arguments)
    take_published(ours, theirs.state_dict(), "file")
    assert published_classes(theirs.state_dict(), "file") == arguments["num_classes"]
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, *ours.input_shape, generator=generator)
    with torch.no_grad():
        expected_KBC = theirs(x)
        assert torch.equal(ours(x), expected_KBC)
    assert not torch.allclose(expected_KBC[0], expected_KBC[-1])


@few
@given(arguments=ranet_arguments())
def test_any_ranet_computes_what_the_public_layout_does(arguments):
    theirs, ours = both(SMALL_RANET | arguments)
    take_published(ours, theirs.state_dict(), "file")
    x = torch.randn(2, *ours.input_shape)
    for train in (False, True):
        with torch.no_grad():
            torch.testing.assert_close(
                ours.train(train)(x), theirs.train(train)(x), rtol=1e-4, atol=1e-4
            )


@few
@given(arguments=msdnet_arguments())
def test_any_msdnet_is_taken_or_refused_for_cells_that_no_exit_reads(arguments):
    theirs, ours = both(arguments)
    state = theirs.state_dict()
    unread = sum(x.numel() for x in theirs.parameters()) - sum(x.numel() for x in ours.parameters())
    if unread:
        with pytest.raises(CheckpointError, match=r"left over: blocks\."):
            take_published(ours, state, "file")
        return
    take_published(ours, state, "file")
    x = torch.randn(2, *ours.input_shape)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def small() -> tuple[nn.Module, MultiExitNet]:
    return both({**SMALL, "base": 1})  # with 2, there are cells that no exit reads


def test_every_tensor_is_copied(small):
    theirs, ours = copy.deepcopy(small)
    take_published(ours, theirs.state_dict(), "file")
    totals = [
        sorted(float(x.double().sum()) for x in net.state_dict().values()) for net in (theirs, ours)
    ]
    assert totals[0] == totals[1]


def test_counters_that_old_versions_did_not_save_may_be_missing(small):
    theirs, ours = copy.deepcopy(small)
    state = {k: v for k, v in theirs.state_dict().items() if "num_batches" not in k}
    take_published(ours, state, "file")
    x = torch.randn(2, *ours.input_shape)
    assert torch.equal(ours(x), theirs(x))


def test_what_does_not_fit_is_named(small):
    theirs, ours = copy.deepcopy(small)
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    state = theirs.state_dict()
    del state["blocks.0.1.layers.0.conv_normal.net.4.running_mean"]
    state["classifier.1.linear.weight"] = torch.zeros(7, 3)
    state["surplus.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as refusal:
        take_published(ours, state, "x.pth")
    message = refusal.value.message
    assert "x.pth: is not the network of these settings" in message
    assert "missing: blocks.0.1.layers.0.conv_normal.net.4.running_mean" in message
    assert "left over: surplus.weight" in message
    assert "of another shape: classifier.1.linear.weight (7, 3), not (4, 128)" in message
    assert all(torch.equal(before[k], v) for k, v in ours.state_dict().items())


def test_sparse_tensors_are_refused(small):
    theirs, ours = copy.deepcopy(small)
    state = theirs.state_dict()
    state["classifier.1.linear.bias"] = state["classifier.1.linear.bias"].to_sparse()
    with pytest.raises(CheckpointError, match=r"sparse or quantised: classifier\.1\.linear\.bias"):
        take_published(ours, state, "x.pth")


def test_other_networks_are_refused(small):
    with pytest.raises(CheckpointError, match=r"it has no classifier\.0\.linear\.bias, but fc\.w"):
        published_classes({"fc.w": torch.zeros(1)}, "x.pth")
    own = MultiExitNet(
        [ChainStage(0)], name="own", num_classes=1, input_shape=(1, 1, 1), arguments={}
    )
    with pytest.raises(SettingsError, match="no published layout is known for own"):
        take_published(own, small[0].state_dict(), "x.pth")


STATE = {"a.weight": torch.arange(3.0), "b": torch.tensor(2)}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 89, "arch": "msdnet", "optimizer": {"lr": [0.1]}},
        {f"module.{name}": tensor for name, tensor in STATE.items()},
        {"state_dict": {f"module.{name}": tensor for name, tensor in STATE.items()}},
    ],
    ids=["bare", "wrapped", "parallel", "wrapped-parallel"],
)
def test_state_dicts_are_read_however_they_were_saved(tmp_path, content, legacy):
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    found = read_foreign_state(path)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())


def test_safetensors_are_read(tmp_path):
    save_file({f"module.{name}": tensor for name, tensor in STATE.items()}, tmp_path / "x")
    assert read_foreign_state(tmp_path / "x").keys() == STATE.keys()


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("touched"),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": STATE, "note": Trap()}, "holds more than tensors"),
        ([1, 2], "holds a list, a state dict is needed"),
        ({"a": 1, "b": "x", "c": STATE["b"]}, "is no state dict: a, b are no tensors"),
        ({}, "holds no tensors"),
    ],
)
def test_files_that_are_no_state_dict_are_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=message):
        read_foreign_state(tmp_path / "x.pth")
    assert not (tmp_path / "touched").exists()


def test_damaged_and_missing_files_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    with pytest.raises(CheckpointError, match="no such file"):
        read_foreign_state(path)
    torch.save(STATE, path)
    for content in (path.read_bytes()[:200], b"PK\x03\x04", b"\x80\x02", b"not a checkpoint"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"damaged"):
            read_foreign_state(path)
    with pytest.raises(CheckpointError, match="is a folder"):
        read_foreign_state(tmp_path)
