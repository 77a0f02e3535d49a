"""Weights that several parts of a traced classifier use.

Two stages must not share any: a stage is trained, counted and exported with weights of its own.
"""

from __future__ import annotations

from collections import defaultdict

from torch import fx, nn


def split_weights(traced: fx.GraphModule, of_images: set[fx.Node]) -> dict[fx.Node, str]:
    """Node → a parameter that is used up to this node and after it, where there is one.

    Args:
        traced: The whole model.
        of_images: The nodes whose values differ from image to image. What the others compute, each
            stage that needs it computes: their parameters are used where they are needed.
    """
    nodes = list(traced.graph.nodes)
    names = {parameter: name for name, parameter in traced.named_parameters()}
    needs: dict[fx.Node, list[nn.Parameter]] = {}
    used_at: dict[nn.Parameter, list[int]] = defaultdict(list)
    for position, node in enumerate(nodes):
        needs[node] = _own(traced, node)
        for source in node.all_input_nodes:
            if source not in of_images:
                needs[node] += needs[source]
        if node in of_images:
            for parameter in needs[node]:
                used_at[parameter].append(position)
    split: dict[fx.Node, str] = {}
    for parameter, positions in used_at.items():
        for position in range(positions[0], positions[-1]):
            split.setdefault(nodes[position], names[parameter])
    return split


def _own(traced: fx.GraphModule, node: fx.Node) -> list[nn.Parameter]:
    """The parameters that the operation of ``node`` itself reads."""
    if node.op == "call_module":
        return list(traced.get_submodule(str(node.target)).parameters())
    if node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        value = getattr(traced.get_submodule(owner), name)
        return [value] if isinstance(value, nn.Parameter) else []
    return []
