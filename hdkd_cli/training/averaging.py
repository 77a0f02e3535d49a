"""An exponential moving average of the network's parameters, which is evaluated and saved.

Source: Polyak & Juditsky, 1992; the smaller decay of the first steps as in TensorFlow and timm.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Averaged parameters a ← d·a + (1−d)·θ, d = min(decay, (1+n)/(10+n)) after n steps.

    Buffers (statistics of BatchNorm) are averages already and stay the network's.

    Args:
        net: The network.
        decay: The largest d.

    Attributes:
        parameters: a by name.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {name: p.detach().clone() for name, p in net.named_parameters()}

    def begin(self, net: nn.Module) -> None:
        """Start from the parameters that ``net`` has now."""
        self._overwrite(self.parameters, net)

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Take in the parameters after the step with index ``step``."""
        decay = min(self.decay, (2 + step) / (11 + step))
        theirs = [parameter.detach() for parameter in net.parameters()]
        torch._foreach_lerp_(list(self.parameters.values()), theirs, 1 - decay)

    @contextmanager
    def in_use(self, net: nn.Module) -> Iterator[None]:
        """Inside, ``net`` has the averaged parameters."""
        own = {name: p.detach().clone() for name, p in net.named_parameters()}
        self.give(net, self.parameters)
        try:
            yield
        finally:
            self.give(net, own)

    @staticmethod
    @torch.no_grad()
    def give(net: nn.Module, values: dict[str, Tensor]) -> None:
        """Copy ``values`` into the parameters of ``net``."""
        for name, parameter in net.named_parameters():
            parameter.copy_(values[name])

    @staticmethod
    @torch.no_grad()
    def _overwrite(copies: dict[str, Tensor], net: nn.Module) -> None:
        for name, parameter in net.named_parameters():
            copies[name].copy_(parameter)
