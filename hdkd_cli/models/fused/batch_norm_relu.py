"""BatchNorm and ReLU as one differentiable operator on NHWC tensors.

It computes what ``relu(batch_norm(x))`` does in training. Torch's BatchNorm in NHWC order is slow
and imprecise on CPUs (docs/log.md); this one reads its input and the gradient twice, from where
they lie, and writes once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hdkd_cli.models.fused.library import library


def batch_norm_relu(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """``relu(norm(x))`` of a module that trains; (B, C, H, W) in, the same out.

    One operator where there is one for ``x``: float32 or bfloat16 in NHWC order on a CPU. Reverse
    and forward mode; not twice differentiable. Updates the running statistics.

    Raises:
        Unavailable: the operator cannot be compiled here.
    """
    if not _has_operator(x, norm):
        return F.relu(norm(x), inplace=True)
    assert norm.num_batches_tracked is not None, "it tracks running statistics"
    norm.num_batches_tracked.add_(1)
    y: Tensor = _BatchNormReLU.apply(
        x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum, norm.eps
    )
    return y


def _has_operator(x: Tensor, norm: nn.BatchNorm2d) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype in _NAMES
        and norm.affine
        and norm.weight.dtype is torch.float32
        and norm.track_running_stats
        and norm.momentum is not None
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.numel() > x.shape[1]  # one value per channel has no variance: torch says so
    )


_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class _BatchNormReLU(Function):
    """The operator in C++; what it computes is written at the top of kernels.cpp."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        y = torch.empty_like(x)
        channels = x.shape[1]
        statistics = torch.empty(2, channels)  # means, inverse standard deviations
        getattr(library(), f"forward_{_NAMES[x.dtype]}")(
            x.data_ptr(),
            y.data_ptr(),
            x.numel() // channels,
            channels,
            weight.data_ptr(),
            bias.data_ptr(),
            running_mean.data_ptr(),
            running_var.data_ptr(),
            momentum,
            eps,
            statistics.data_ptr(),
            torch.get_num_threads(),
        )
        ctx.save_for_backward(x, weight, bias, statistics)
        ctx.save_for_forward(x, weight, bias, statistics)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, statistics = ctx.saved_tensors
        gradient, stride = _rows(gradient, like=x)
        to_x = torch.empty_like(x)
        to_parameters = torch.empty_like(statistics)
        channels = x.shape[1]
        getattr(library(), f"backward_{_NAMES[x.dtype]}")(
            x.data_ptr(),
            gradient.data_ptr(),
            stride,
            to_x.data_ptr(),
            x.numel() // channels,
            channels,
            weight.data_ptr(),
            bias.data_ptr(),
            statistics.data_ptr(),
            to_parameters.data_ptr(),
            torch.get_num_threads(),
        )
        to_weight, to_bias = to_parameters.unbind()
        return to_x, to_weight, to_bias, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, of_x: Tensor, of_weight: Tensor, of_bias: Tensor, *_: Any) -> Tensor:
        x, weight, bias, statistics = ctx.saved_tensors
        of_x, stride = _rows(of_x, like=x)
        of_y = torch.empty_like(x)
        channels = x.shape[1]
        getattr(library(), f"tangent_{_NAMES[x.dtype]}")(
            x.data_ptr(),
            of_x.data_ptr(),
            stride,
            of_y.data_ptr(),
            x.numel() // channels,
            channels,
            weight.data_ptr(),
            bias.data_ptr(),
            of_weight.contiguous().data_ptr(),
            of_bias.contiguous().data_ptr(),
            statistics.data_ptr(),
            torch.get_num_threads(),
        )
        return of_y


def _rows(t: Tensor, *, like: Tensor) -> tuple[Tensor, int]:
    """``t`` in the type of ``like``, its channels side by side, and the elements between two rows.

    A channel slice of an NHWC tensor, such as the gradient of a part of a concatenation, is taken
    as it is; anything else is copied.
    """
    t = t.to(like.dtype)
    _, c, h, w = t.shape
    per_image, per_channel, per_line, stride = t.stride()
    regular = per_channel == 1 and per_line == w * stride and per_image == h * per_line
    if regular and stride >= c and min(h, w) > 1:  # of sides of one pixel, strides say nothing
        return t, stride
    return t.contiguous(memory_format=torch.channels_last), c
