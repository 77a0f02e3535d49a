"""The network's optimiser: SGD or AdamW, one learning rate for the backbone and one for the heads.

Both fused: they read on the device whether to leave everything as it is (``found_inf``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.settings.schema import OptimizerSettings
from hdkd_cli.training.regimes import refuse_without_heads

EPSILON = 1e-8
"""AdamW's recommended ε (Kingma & Ba, ICLR 2015)."""
RATE = "rate"
"""Key of a parameter group: its learning rate over ``optimizer.lr``."""


def build_optimizer(
    net: MultiExitNet, settings: OptimizerSettings, trained: Sequence[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimiser of the parameters ``trained``; its buffers exist from the start.

    Raises:
        SettingsError: the heads have a rate of their own, and the network does not tell them apart.
    """
    groups = list(_groups(net, settings, trained))
    optimizer: torch.optim.Optimizer
    if settings.name == "adamw":
        optimizer = torch.optim.AdamW(
            groups,
            lr=settings.lr,
            betas=(settings.momentum, settings.beta2),
            eps=EPSILON,
            weight_decay=settings.weight_decay,
            fused=True,
        )
    else:
        optimizer = torch.optim.SGD(
            groups,
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=settings.weight_decay,
            fused=True,
        )
    # zeros are what a first step assumes; a no-op first step needs them
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for slot in _slots(settings).values():
                start = torch.zeros_like(parameter)
                if slot == "step":
                    start = torch.zeros((), dtype=torch.float32, device=parameter.device)
                optimizer.state[parameter][slot] = start
    return optimizer


def _groups(
    net: MultiExitNet, settings: OptimizerSettings, trained: Sequence[nn.Parameter]
) -> Iterator[dict[str, object]]:
    if settings.heads_lr is None:
        yield {"params": trained, RATE: 1.0}
        return
    refuse_without_heads(net, "optimizer.heads_lr")
    heads = set(net.head_parameters())
    for part, rate in (
        ([p for p in trained if p not in heads], 1.0),
        ([p for p in trained if p in heads], settings.heads_lr / settings.lr),
    ):
        if part:
            yield {"params": part, RATE: rate}


def _slots(settings: OptimizerSettings) -> dict[str, str]:
    """What a checkpoint calls a parameter's buffers → what torch calls them."""
    if settings.name == "adamw":
        return {"first_moment": "exp_avg", "second_moment": "exp_avg_sq", "steps": "step"}
    return {"momentum": "momentum_buffer"} if settings.momentum else {}


def optimizer_tensors(
    net: nn.Module, optimizer: torch.optim.Optimizer, settings: OptimizerSettings
) -> dict[str, Tensor]:
    """The buffers by name: no copies."""
    return {
        f"{kept}.{name}": optimizer.state[parameter][slot]
        for kept, slot in _slots(settings).items()
        for name, parameter in net.named_parameters()
        if parameter in optimizer.state
    }


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Let ``lr`` be the rate that ``optimizer.lr`` stands for."""
    for group in optimizer.param_groups:
        group["lr"] = group[RATE] * lr


def _bias(beta: float, step: Tensor) -> Tensor:
    """1 − βⁿ, without its cancellation in float32."""
    return -torch.expm1(step * math.log(beta)) if beta else torch.ones_like(step)


Direction = dict[str, Tensor]


def preconditioner(
    net: nn.Module, optimizer: torch.optim.Optimizer, settings: OptimizerSettings
) -> Callable[[Direction], Direction] | None:
    """v → P·v, where the step that was taken moved θ by −η·P·g and terms independent of g.

    P is diagonal, so its product with v stands for its product with every term's gradient. SGD:
    the learning rate of a group over η. AdamW, at its n-th step, with the second moment v̂ₙ as a
    constant [ours: it moves by 1−β₂, a thousandth, per step]:

        P = (1−β₁) / (1−β₁ⁿ) / (√(v̂ₙ / (1−β₂ⁿ)) + ε)

    None: P is the identity.
    """
    if settings.name == "sgd" and settings.heads_lr is None:
        return None
    rates = {p: float(group[RATE]) for group in optimizer.param_groups for p in group["params"]}
    parameters = dict(net.named_parameters())
    beta1, beta2 = settings.momentum, settings.beta2

    def precondition(direction: Direction) -> Direction:
        moved = {}
        for name, v in direction.items():
            parameter = parameters[name]
            moved[name] = v * rates[parameter]
            if settings.name == "adamw":
                state = optimizer.state[parameter]
                second = (state["exp_avg_sq"] / _bias(beta2, state["step"])).sqrt()
                moved[name] *= (1 - beta1) / _bias(beta1, state["step"]) / (second + EPSILON)
        return moved

    return precondition
