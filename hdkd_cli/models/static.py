"""Networks without early exits: what the same cost buys when nothing leaves early."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import cast

import torch
from torch import Tensor, nn

from hdkd_cli.errors import SettingsError
from hdkd_cli.models.contract import MultiExitNet, Stage, State


def static_network(net: MultiExitNet, cut_at: int | None) -> MultiExitNet:
    """``net`` up to one exit, without the heads of the others.

    Its initial weights are those that the network with all exits starts with.

    Args:
        net: A fresh network, whose stages are taken over.
        cut_at: The exit that it ends at, from 1; None: the last.

    Raises:
        SettingsError: there is no such exit.
    """
    last = net.num_exits if cut_at is None else cut_at
    if last > net.num_exits:
        raise SettingsError(
            f"model.cut_at = {last}: the network has {net.num_exits} exits", subject="model.cut_at"
        )
    static = MultiExitNet(
        [StaticStage(net.stages[:last])],
        name=net.name,
        num_classes=net.num_classes,
        input_shape=net.input_shape,
        arguments={**net.arguments, "exits": net.num_exits, "cut_at": last},
    )
    _drop_unused(static)
    return static


class StaticStage(Stage):
    """The bodies of some stages in turn, and the head of the last of them.

    Args:
        stages: At least one.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.parts = cast("Sequence[Stage]", nn.ModuleList(stages))
        self.head_keys = stages[-1].head_keys

    def body(self, state: State) -> State:
        """From the image to what the head reads."""
        for part in self.parts:
            state = part.body(state)
        return {key: state[key] for key in self.head_keys}

    def head(self, state: State) -> Tensor:
        """Logits (B, C)."""
        return self.parts[-1].head(state)

    def head_modules(self) -> tuple[nn.Module, ...]:
        """Those of the last part."""
        return self.parts[-1].head_modules()


def _drop_unused(static: MultiExitNet) -> None:
    """Take out of each part the modules that are not called and do not matter to the logits."""
    like = next(static.parameters())
    image = torch.zeros(1, *static.input_shape, device=like.device, dtype=like.dtype)
    parameters, called = list(static.parameters()), set[nn.Module]()
    with ExitStack() as stack:
        for module in static.modules():
            hook = module.register_forward_pre_hook(lambda module, _: called.add(module))
            stack.callback(hook.remove)
        static.eval()
        stack.callback(static.train)
        stack.enter_context(torch.enable_grad())
        gradients = torch.autograd.grad(static(image).sum(), parameters, allow_unused=True)
    used = {p for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
    (stage,) = static.stages
    for part in cast("StaticStage", stage).parts:
        for name, module in list(part.named_children()):
            if not called & set(module.modules()) and not used & set(module.parameters()):
                setattr(part, name, None)
