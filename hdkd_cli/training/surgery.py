"""Gradient surgery: what exits want of the parameters against each other is taken out.

Source: Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, algorithm 1 (PCGrad).
A task is an exit: the weighted losses in which it is the student. Its gradient is one vector over
all parameters; what an exit does not use counts as zero.

Shape suffixes: K exits, T terms, P numbers in all parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hdkd_cli.errors import SettingsError
from hdkd_cli.method.terms import Term
from hdkd_cli.settings.schema import Settings
from hdkd_cli.training.distributed import Ranks

KEY = "objective.gradient_surgery"


def refuse_surgery(settings: Settings, ranks: Ranks) -> None:
    """Raises:
    SettingsError: gradients are projected, and something rests on their being a plain sum.
    """
    weights, training = settings.weights, settings.training
    if weights.learned and weights.learner == "hypergradient":
        raise SettingsError(
            f"{KEY}: the derivative by the weights holds for a step along the sum of the gradients",
            hint="use fixed weights, or weights.learner=continuations",
        )
    if training.accumulate > 1 or ranks.size > 1:
        raise SettingsError(
            f"{KEY}: gradients are projected before they are added up, so a step is one batch of "
            "one process",
            hint="use training.accumulate=1 and one device",
        )
    if training.compile:
        raise SettingsError(
            f"{KEY}: a compiled network goes backward once, not once per exit",
            hint="use training.compile=false",
        )


class Surgery:
    """A backward pass for each exit, whose gradients are projected and added up.

    Args:
        terms: The loss terms.
        num_exits: K.
        device: Where the losses are.
    """

    def __init__(self, terms: Sequence[Term], num_exits: int, device: torch.device) -> None:
        students_T = torch.tensor([term.student for term in terms], device=device)
        exits_K = torch.arange(1, num_exits + 1, device=device)
        self._belongs_KT = (students_T == exits_K[:, None]).float()

    def backward(self, losses_T: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Add the projected sum of the exits' gradients to ``grad`` of the parameters.

        Draws the order of the projections from the random numbers of the losses' device.
        """
        losses_K = self._belongs_KT @ losses_T
        num_exits = len(losses_K)
        gradients_KP = torch.stack(
            [
                torch.cat([g.flatten() for g in self._gradient(losses_K, k, parameters)])
                for k in range(num_exits)
            ]
        )
        order_KK = torch.rand(num_exits, num_exits, device=losses_K.device).argsort(1)
        total_P = without_conflicts(gradients_KP, order_KK)
        sizes = [parameter.numel() for parameter in parameters]
        for parameter, part in zip(parameters, torch.split(total_P, sizes), strict=True):
            gradient = part.view_as(parameter)
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)

    @staticmethod
    def _gradient(
        losses_K: Tensor, k: int, parameters: Sequence[nn.Parameter]
    ) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            losses_K[k],
            parameters,
            retain_graph=k + 1 < len(losses_K),
            allow_unused=True,
            materialize_grads=True,
        )


def without_conflicts(gradients_KP: Tensor, order_KK: Tensor) -> Tensor:
    """The sum of all g_i after g_i ← g_i − min(0, g_i·g_j)/‖g_j‖² · g_j for every j in its order.

    All of that happens in the span of the gradients, so their products are computed once and the
    projections change K coefficients each.

    Args:
        gradients_KP: One gradient per row.
        order_KK: Row i: in which order i is projected, a permutation of all rows; itself changes
            nothing.

    Returns:
        The sum, (P,).
    """
    products_KK = gradients_KP @ gradients_KP.T
    squares_K = products_KK.diagonal()
    coefficients_KK = torch.eye(len(order_KK), dtype=products_KK.dtype, device=products_KK.device)
    rows_K = torch.arange(len(order_KK), device=order_KK.device)
    for others_K in order_KK.unbind(1):
        product_K = (coefficients_KK * products_KK[others_K]).sum(1)
        against_K = product_K.clamp(max=0) / squares_K[others_K]
        # an exit whose gradient vanishes is in nobody's way, nor an exit in its own
        idle_K = (squares_K[others_K] == 0) | (others_K == rows_K)
        step_K = torch.where(idle_K, 0.0, against_K)
        coefficients_KK[rows_K, others_K] -= step_K
    return coefficients_KK.sum(0) @ gradients_KP
