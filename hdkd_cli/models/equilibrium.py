"""Scaling of gradients for gradient equilibrium (Li et al., ICCV 2019)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function, forward_ad


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """R(a): ``x`` itself, whose derivative counts ``factor`` times, in reverse and forward mode.

    The result shares the memory of ``x``. Forward mode has to count the factor as well, since the
    hypergradient pairs the step that was taken, scaled gradients and all, with a direction.
    """
    if factor == 1:
        return x
    # A Function may return a view only if its tangent is one too, which a scaled tangent is not:
    # so the tangent is scaled out here, and no copy is made.
    primal, tangent = forward_ad.unpack_dual(x)  # type: ignore[no-untyped-call]
    scaled: Tensor = _ScaleReverse.apply(primal, factor)
    if tangent is not None:
        scaled = forward_ad.make_dual(scaled, tangent * factor)  # type: ignore[no-untyped-call]
    return scaled


class _ScaleReverse(Function):
    """The reverse-mode half of R(a)."""

    @staticmethod
    def forward(x: Tensor, _factor: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], _output: Tensor) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None
