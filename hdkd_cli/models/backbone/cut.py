"""Where a traced classifier can be cut into stages, and the cutting.

A cut is possible where exactly one tensor is alive: computed before, needed after. It becomes the
state between two stages. What does not depend on the images (the angles of rotary embeddings, say)
is no state: every stage that needs it computes it. No parameter may be needed on both sides.

torch's own ``split_module`` would hand such constants on as inputs, without a batch to narrow.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from hdkd_cli.errors import SettingsError
from hdkd_cli.models.backbone.shared import split_weights
from hdkd_cli.models.cost import countable
from hdkd_cli.settings.keys import closest

Layout = Literal["map", "tokens", "map-last"]
"""Of features: (B, C, H, W), (B, N, C) or (B, H, W, C)."""

BATCHES = (2, 3)
"""Batch sizes at which shapes are compared, to find out which depend on the batch."""


@dataclass(frozen=True)
class Place:
    """Where a cut is possible.

    Attributes:
        node: The one tensor that is alive.
        position: Place of the last node before the cut, in the order of the graph.
        names: The modules that return the tensor, the innermost first.
        macs: Multiply-accumulates before the cut, for one image.
        shape: Of the tensor, without the batch.
        splits: A parameter that is needed before the cut and after it, which forbids it; or None.
    """

    node: fx.Node
    position: int
    names: tuple[str, ...]
    macs: int
    shape: tuple[int, ...]
    splits: str | None


@dataclass(frozen=True)
class Run:
    """What a traced model does with images of one size.

    Attributes:
        values: Node → its value at each of ``BATCHES``; of a tensor only the shape is true.
        macs: Node → multiply-accumulates of one image.
    """

    values: dict[fx.Node, tuple[Any, ...]]
    macs: dict[fx.Node, int]


def run_shapes(traced: fx.GraphModule, image_size: int) -> Run:
    """Run ``traced`` without computing anything, to see all shapes and costs.

    Raises:
        Exception: whatever the model raises if it does not take images of this size.
    """
    watched = [_Watched(traced) for _ in BATCHES]
    with countable(traced), FakeTensorMode(allow_non_fake_inputs=True):
        for batch, watch in zip(BATCHES, watched, strict=True):
            watch.run(torch.empty(batch, 3, image_size, image_size))
    values = {node: tuple(watch.values[node] for watch in watched) for node in traced.graph.nodes}
    macs = {node: macs // BATCHES[0] for node, macs in watched[0].macs.items()}
    return Run(values, macs)


class _Watched(fx.Interpreter):
    """Runs node by node and keeps values and costs."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced, garbage_collect_values=False)
        self.values: dict[fx.Node, Any] = {}
        self.macs: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        with FlopCounterMode(display=False) as counter:
            value = self.values[n] = super().run_node(n)
        self.macs[n] = counter.get_total_flops() // 2  # it counts two per multiply-accumulate
        return value


def fix_sizes(traced: fx.GraphModule, run: Run) -> None:
    """Write numbers that do not depend on the batch (heights, widths) into the graph as such."""
    for node in list(traced.graph.nodes):
        first, second = run.values[node]
        if isinstance(first, int) and first == second:
            for user in list(node.users):
                user.args, user.kwargs = fx.node.map_arg(
                    (user.args, user.kwargs), functools.partial(_swap, node, first)
                )
    traced.graph.eliminate_dead_code()
    traced.recompile()


def _swap(old: fx.Node, new: int, node: fx.Node) -> Any:
    return new if node is old else node


def places(traced: fx.GraphModule, run: Run, returned_by: dict[fx.Node, list[str]]) -> list[Place]:
    """All places between two modules where features of every image are all that is alive.

    Also those that the parameters forbid: their ``splits`` says by which.
    """
    order = {node: position for position, node in enumerate(traced.graph.nodes)}
    of_images = depends_on_images(traced.graph)
    splits = split_weights(traced, of_images)
    last_use = {node: max((order[user] for user in node.users), default=-1) for node in of_images}
    found: dict[fx.Node, Place] = {}
    alive: set[fx.Node] = set()
    macs = 0
    for node, position in order.items():
        macs += run.macs[node]
        if node in of_images:
            alive.add(node)
        alive = {old for old in alive if last_use[old] > position}
        if len(alive) != 1:
            continue
        (one,) = alive
        shape = _features_of(run.values[one])
        if shape is not None and one in returned_by:
            names = tuple(returned_by[one])
            found[one] = Place(one, position, names, macs, shape, splits.get(node))
    return list(found.values())


def depends_on_images(graph: fx.Graph) -> set[fx.Node]:
    """The nodes whose values differ from image to image, the images included."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(source in found for source in node.all_input_nodes):
            found.add(node)
    return found


def _features_of(values: tuple[Any, ...]) -> tuple[int, ...] | None:
    """The shape of features without the batch; None if these are no features of single images."""
    shapes = [tuple(value.shape) for value in values if isinstance(value, Tensor)]
    if len(shapes) < len(BATCHES) or len(shapes[0]) not in (3, 4):
        return None
    same = all(
        shape == (batch, *shapes[0][1:]) for shape, batch in zip(shapes, BATCHES, strict=True)
    )
    return shapes[0][1:] if same else None


def choose(found: Sequence[Place], exits: int | Sequence[str], macs: int, name: str) -> list[Place]:
    """The places of the earlier exits, in order, and that of the last exit's features.

    Args:
        found: Where a cut is possible, as `without_splits` has several.
        exits: K, at equal shares of the multiply-accumulates; or the modules after which to exit,
            the last exit not named.
        macs: Multiply-accumulates of the whole model for one image.
        name: What the model is called, for messages.

    Raises:
        SettingsError: there are too few places, or none after such a module.
    """
    where = f"model.name = {name!r}"
    *earlier, end = without_splits(found)
    if not isinstance(exits, int):
        return [*_named(found, exits, where), end]
    usable = list({place.macs: place for place in earlier if place.macs}.values())
    if len(usable) < exits - 1:
        count = "1 place" if len(usable) == 1 else f"{len(usable)} places"
        shares = "; elsewhere its blocks share weights" if any(p.splits for p in found) else ""
        raise SettingsError(
            f"model.exits = {exits}: {name} can be cut in {count}{shares}",
            hint=f"it can have up to {len(usable) + 1} exits",
            subject="model.exits",
        )
    chosen: list[Place] = []
    first = 0
    for k in range(1, exits):
        room = range(first, len(usable) - (exits - 1 - k))
        wanted = macs * k / exits
        best = min(room, key=lambda i: abs(usable[i].macs - wanted))
        chosen.append(usable[best])
        first = best + 1
    return [*chosen, end]


def without_splits(found: Sequence[Place]) -> list[Place]:
    """The places where no parameter is needed on both sides: earlier exits, and the last one's.

    Empty if there are not even places for two exits.
    """
    allowed = [place for place in found if place.splits is None]
    earlier = [place for place in allowed if place.macs < allowed[-1].macs]
    return [*earlier, allowed[-1]] if any(place.macs for place in earlier) else []


def _named(found: Sequence[Place], exits: Sequence[str], where: str) -> list[Place]:
    """The places after the modules called ``exits``."""
    *earlier, _ = without_splits(found)
    after = {name: place for place in earlier for name in place.names}
    splits = {name: place.splits for place in found for name in place.names if place.splits}
    for wanted in exits:
        if wanted not in after:
            outermost = list(dict.fromkeys(place.names[-1] for place in earlier))
            near = closest(wanted, outermost) or outermost
            why = f", as {splits[wanted]} is needed before and after" if wanted in splits else ""
            raise SettingsError(
                f"model.exits: {where} cannot be cut after {wanted!r}{why}",
                hint=f"closest: {near[0]}; it can be cut after {', '.join(outermost)}",
                subject="model.exits",
            )
    chosen = [after[name] for name in exits]
    if any(a.macs >= b.macs for a, b in pairwise(chosen)):
        raise SettingsError(
            f"model.exits: {where} does not run through {', '.join(exits)} in this order, doing "
            "something in between",
            subject="model.exits",
        )
    return chosen


def part(traced: fx.GraphModule, first: Place | None, last: Place | None) -> fx.GraphModule:
    """The stretch of ``traced`` between two places as a module of its own, weights shared.

    Args:
        traced: The whole model.
        first: Where it begins; None: with the images.
        last: Where it ends; None: with what the model returns.
    """
    nodes = list(traced.graph.nodes)
    inside = nodes[first.position + 1 if first else 0 : last.position + 1 if last else None]
    of_images = depends_on_images(traced.graph)
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}

    def copy(node: fx.Node) -> fx.Node:
        if node not in copies:
            assert node not in of_images, "more is alive than was counted"
            copies[node] = graph.node_copy(node, copy)
        return copies[node]

    if first is not None:
        copies[first.node] = graph.placeholder("features")
    for node in inside:
        if node.op != "output" and node in of_images:
            copies[node] = graph.node_copy(node, copy)
    returned: Any = last.node if last else next(iter(reversed(nodes))).args[0]
    graph.output(fx.node.map_arg(returned, copy))
    graph.lint()
    return fx.GraphModule(traced, graph)


def layouts(shapes: Iterable[tuple[int, ...]]) -> list[Layout]:
    """How features of these shapes lie in memory; square maps are assumed.

    Where all three sizes agree, the channels are where they are in the model's other features.
    """
    known: list[Layout | None] = [_layout(shape) for shape in shapes]
    maps = [layout for layout in known if layout in ("map", "map-last")]
    other: Layout = maps[0] or "map" if maps else "map"
    return [layout or other for layout in known]


def _layout(shape: tuple[int, ...]) -> Layout | None:
    if len(shape) == 2:
        return "tokens"
    if shape[1] == shape[2]:
        return None if shape[0] == shape[1] else "map"
    return "map-last"
