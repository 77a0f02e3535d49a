"""Weights that others published, in the networks of this package.

The public code for MSDNet (kalviny/MSDNet-PyTorch, whose layout LeapLabTHU/L2W-DEN shares) and for
RANet (yangle15/RANet-pytorch) arranges the same tensors in other modules, all scales and all layers
of a block side by side. A layout says which module of ours is which of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from hdkd_cli.errors import CheckpointError, SettingsError
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.models.msdnet import MSDNet
from hdkd_cli.models.ranet import RANet
from hdkd_cli.models.ranet_blocks import FusionBlock

Pairs = Iterator[tuple[str, str]]
"""Names of modules that hold tensors: ours, theirs."""

COUNTER = "num_batches_tracked"
"""BatchNorm's count of batches, which old versions of torch did not save; nothing here reads it."""
FIRST_BIAS = "classifier.0.linear.bias"


def published_classes(state: Mapping[str, Tensor], source: object) -> int:
    """C of a published network.

    Raises:
        CheckpointError: it is none.
    """
    if FIRST_BIAS not in state:
        raise CheckpointError(
            f"{source}: is no published MSDNet or RANet: it has no {FIRST_BIAS}, but "
            f"{_some(sorted(state))}",
            subject=source,
        )
    return len(state[FIRST_BIAS])


def take_published(net: MultiExitNet, state: Mapping[str, Tensor], source: object) -> None:
    """Put published tensors into ``net``: every one of them, and all that it needs.

    Args:
        net: The network, built with the arguments of the published one.
        state: Their tensors by their names.
        source: Where they are from, for messages.

    Raises:
        SettingsError: there is no layout for this architecture.
        CheckpointError: a tensor is missing, left over or of another shape; all are named.
    """
    if net.name not in LAYOUTS:
        raise SettingsError(
            f"model.name: no published layout is known for {net.name}, only for "
            f"{', '.join(LAYOUTS)}"
        )
    theirs = dict(LAYOUTS[net.name](net))
    ours = net.state_dict()
    name_of = {}
    for name in ours:
        module, _, tensor = name.rpartition(".")
        name_of[name] = f"{theirs[module]}.{tensor}"
    missing = [n for n in name_of.values() if n not in state and not n.endswith(COUNTER)]
    left_over = sorted(state.keys() - set(name_of.values()))
    unlike = [
        f"{n} {tuple(state[n].shape)}, not {tuple(ours[own].shape)}"
        for own, n in name_of.items()
        if n in state and state[n].shape != ours[own].shape
    ]
    odd = [n for n, x in state.items() if x.layout is not torch.strided or x.is_quantized]
    found = (
        ("missing", missing),
        ("left over", left_over),
        ("of another shape", unlike),
        ("sparse or quantised", odd),
    )
    if problems := [f"{what}: {_some(names)}" for what, names in found if names]:
        raise CheckpointError(
            f"{source}: is not the network of these settings\n  " + "\n  ".join(problems),
            hint="model.* must be what the checkpoint was trained with; --set changes a preset",
            subject=source,
        )
    net.load_state_dict({own: state.get(n, ours[own]) for own, n in name_of.items()})


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def _cbr(ours: str, theirs: str) -> Pairs:
    for i in (0, 1):
        yield f"{ours}.{i}", f"{theirs}.net.{i}"


def _branch(ours: str, theirs: str) -> Pairs:
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        yield f"{ours}.{i}.{j}", f"{theirs}.net.{3 * i + j}"


def _head(k: int) -> Pairs:
    for i in (0, 1):
        yield from _cbr(f"stages.{k}.classifier.{i}", f"classifier.{k}.m.{i}")
    yield f"stages.{k}.classifier.4", f"classifier.{k}.linear"


def _stem(stem: nn.ModuleList, theirs: str) -> Pairs:
    for s, layer in enumerate(stem):
        if len(cast("nn.Sequential", layer)) == 4:  # with pooling: theirs is not wrapped
            for i in (0, 1):
                yield f"stages.0.stem.{s}.{i}", f"{theirs}.layers.{s}.{i}"
        else:
            yield from _cbr(f"stages.0.stem.{s}", f"{theirs}.layers.{s}")


def _msdnet(net: MSDNet) -> Pairs:
    """A transition takes a place of its own after its layer; the stem the first of block 0."""
    layers = sorted({cell.layer for stage in net.stages for cell in stage.cells})
    place_of, places = {}, [1] + [0] * (net.num_exits - 1)
    for layer in layers:
        place_of[layer] = places[layer.block]
        places[layer.block] += 2 if layer.transition else 1
    for k, stage in enumerate(net.stages):
        if stage.stem is not None:
            yield from _stem(stage.stem, "blocks.0.0")
        for j, cell in enumerate(stage.cells):
            ours, layer = f"stages.{k}.cells.{j}", cell.layer
            block, place = f"blocks.{layer.block}", place_of[layer]
            scale = cell.scale - layer.finest_out
            if cell.down is not None:
                yield from _branch(f"{ours}.down", f"{block}.{place}.layers.{scale}.conv_down")
            yield from _branch(f"{ours}.same", f"{block}.{place}.layers.{scale}.conv_normal")
            if cell.transition is not None:
                yield from _cbr(f"{ours}.transition", f"{block}.{place + 1}.m.{scale}")
        yield from _head(k)


def _ranet(net: RANet) -> Pairs:
    for k, stage in enumerate(net.stages):
        if stage.stem is not None:
            yield from _stem(stage.stem, "FirstLayer")
        for j, block in enumerate(stage.blocks):
            ours = f"stages.{k}.blocks.{j}"
            theirs = f"scale_flows.{block.plan.net - 1}.{block.plan.number - 1}"
            for i in range(block.plan.layers):
                yield from _branch(f"{ours}.layers.{i}", f"{theirs}.layers.{i}.conv_normal")
                if isinstance(block, FusionBlock):
                    yield from _branch(f"{ours}.low_layers.{i}", f"{theirs}.layers.{i}.conv_up")
            if isinstance(block, FusionBlock):
                yield from _cbr(f"{ours}.append", f"{theirs}.conv_last")
            if block.transition is not None:
                yield from _cbr(f"{ours}.transition", f"{theirs}.trans")
        yield from _head(k)


LAYOUTS: Mapping[str, Callable[..., Pairs]] = {"msdnet": _msdnet, "ranet": _ranet}
