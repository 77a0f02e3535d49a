"""Whether a network's ``forward`` is its stages, which all else rests on. K exits, B batch.

Training and evaluation call ``forward``, early exit and export call the stages. ``check_network``
in ``hdkd_cli/testing.py`` looks at the rest of the contract.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.models.modes import evaluating

TOLERANCE = 1e-4
"""Largest difference of logits that rounding may make in float32, relative to the largest logit."""


def noise(net: MultiExitNet, batch: int) -> Tensor:
    """Images (B, ...) of noise where the network is, the same each time."""
    like = next(net.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, *net.input_shape, generator=generator).to(like)


def run_stages(net: MultiExitNet, images_BCHW: Tensor) -> Tensor:
    """Logits (K, B, C) of the stages alone, one after another."""
    state, logits = net.start(images_BCHW), []
    for stage in net.stages:
        state = stage.body(state)
        logits.append(stage.head(state))
    return torch.stack(logits)


def gap(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, relative to the largest value; NaN where one of them is no number."""
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1))


def forward_problem(net: MultiExitNet) -> str | None:
    """How ``forward`` differs from the stages, on noise in evaluation mode; None: not at all.

    The network is left as it was found. On the meta device there is nothing to compare.
    """
    if any(parameter.is_meta for parameter in net.parameters()):
        return None
    images = noise(net, batch=2)
    try:
        with evaluating(net), torch.no_grad():
            whole_KBC, stages_KBC = net(images), run_stages(net, images)
    except Exception as problem:  # whatever the network stumbles over is the finding
        return f"it cannot run on noise: {type(problem).__name__}: {problem}"
    wanted = (net.num_exits, len(images), net.num_classes)
    for name, logits_KBC in (("forward", whole_KBC), ("its stages", stages_KBC)):
        if logits_KBC.shape != wanted:
            return f"{name} returned {tuple(logits_KBC.shape)}, (exits, batch, classes) = {wanted}"
    if not gap(whole_KBC, stages_KBC) <= TOLERANCE:
        return (
            f"forward is not its stages: their logits differ by {gap(whole_KBC, stages_KBC):.2g} "
            "of the largest"
        )
    return None
