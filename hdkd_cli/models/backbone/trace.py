"""A classifier as a graph whose nodes are whole blocks.

Tracing goes into a module only to reach the blocks in it. What happens inside a block stays a call
of the block itself, so dropout, stochastic depth and BatchNorm keep following ``train()`` and
``eval()``, which tracing would otherwise fix as they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class BlockTracer(fx.Tracer):
    """Traces down to blocks, and remembers which values the modules return.

    Attributes:
        returned_by: Node → paths of the modules that return it, innermost first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.returned_by: dict[fx.Node, list[str]] = {}

    def is_leaf_module(self, m: nn.Module, _path: str) -> bool:
        return not (type(m) is nn.Sequential or holds_blocks(m))

    def call_module(
        self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        path = self.path_of_module(m)
        out = super().call_module(m, forward, args, kwargs)
        if isinstance(out, fx.Proxy):
            self.returned_by.setdefault(out.node, []).append(path)
        return out


def holds_blocks(module: nn.Module) -> bool:
    """Whether there is a chain of blocks somewhere inside ``module``."""
    return any(
        isinstance(inner, CONTAINERS) and sum(is_compound(child) for child in inner.children()) >= 2
        for inner in module.modules()
    )


def is_compound(module: nn.Module) -> bool:
    """Whether ``module`` has several layers with weights, norms aside: a block, not a layer."""
    return sum(1 for _ in _weighted_layers(module)) >= 2


def _weighted_layers(module: nn.Module) -> Iterator[nn.Module]:
    for inner in module.modules():
        weight = dict(inner.named_parameters(recurse=False)).get("weight")
        if isinstance(inner, nn.MultiheadAttention) or (weight is not None and weight.ndim > 1):
            yield inner


def trace(model: nn.Module) -> tuple[fx.GraphModule, dict[fx.Node, list[str]]]:
    """``model`` as a graph from the images alone, and which module returns which of its values.

    The other arguments of its ``forward`` get their defaults.

    Raises:
        Untraceable: outside its blocks it computes something else while it trains.
        Exception: whatever its forward raises, whose way depends on the images' values, say.
    """
    training = model.training
    codes = []
    try:
        for mode in (True, False):
            model.train(mode)
            tracer = BlockTracer()
            graph = tracer.trace(model, concrete_args=_defaults(model))
            traced = fx.GraphModule(model, graph)
            _dropouts_as_modules(traced)
            _drop_unused(traced)
            codes.append(traced.code)
    finally:
        model.train(training)
    if codes[0] != codes[1]:
        raise Untraceable("outside its blocks it computes something else while it trains")
    return traced, tracer.returned_by


class Untraceable(Exception):
    """A model is no graph of blocks."""


def _defaults(model: nn.Module) -> dict[str, Any]:
    """Defaults of all arguments of ``model.forward`` but the first."""
    _, *others = inspect.signature(model.forward).parameters.values()
    return {
        argument.name: argument.default
        for argument in others
        if argument.default is not argument.empty
    }


def _dropouts_as_modules(traced: fx.GraphModule) -> None:
    """Make modules of dropouts outside blocks: as functions they would not follow ``train()``."""
    for number, node in enumerate(traced.graph.find_nodes(op="call_function", target=F.dropout)):
        arguments = dict(zip(("input", "p", "training", "inplace"), node.args, strict=False))
        arguments |= node.kwargs
        traced.add_submodule(f"dropout_{number}", nn.Dropout(arguments.get("p", 0.5)))
        with traced.graph.inserting_before(node):
            module = traced.graph.call_module(f"dropout_{number}", (arguments["input"],))
        node.replace_all_uses_with(module)
        traced.graph.erase_node(node)


def _drop_unused(traced: fx.GraphModule) -> None:
    """Take out checks of shapes, which are always the same here, and all that nothing needs."""
    graph = traced.graph
    for node in graph.find_nodes(op="call_function", target=torch._assert):
        graph.erase_node(node)
    graph.eliminate_dead_code()
    for argument in graph.find_nodes(op="placeholder")[1:]:
        assert not argument.users, "an argument with a default is a constant in the graph"
        graph.erase_node(argument)
    traced.recompile()
