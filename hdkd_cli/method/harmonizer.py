"""When and how the weights are updated while the network trains.

K exits, T terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hdkd_cli.method.hypergradient import (
    Batch,
    Mean,
    StepInputs,
    hypergradient,
    validation_gradient,
)
from hdkd_cli.method.terms import Terms
from hdkd_cli.method.validation import BalancedValidation
from hdkd_cli.method.weights import HarmonizedWeights

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's own recommended constants (Kingma & Ba, ICLR 2015)."""


@dataclass(frozen=True)
class WeightUpdate:
    """The record of one update, on the device: reading a value waits for it.

    Attributes:
        applied: Bool scalar; False where the update was not finite or the step had been skipped,
            and nothing was changed.
        val_loss: L_val, a scalar.
        val_ce_K: Validation cross-entropy of each exit.
        hypergradient_T: (1/η)·∂L_val/∂γ_t.
    """

    applied: Tensor
    val_loss: Tensor
    val_ce_K: Tensor
    hypergradient_T: Tensor


class Harmonizer(nn.Module):
    """Learns the weights on validation batches, alternating with the network's own steps.

    Source: Wang & Li, AAAI 2021, Algorithm 1 (γ and θ are updated alternately, γ by descent on the
    validation objective). [ours]: an update every ``interval`` steps, by Adam on the hypergradient
    divided by η, with a decoupled pull towards the start:

        raw ← raw − lr · (m̂ / (√v̂ + ε) + pull · raw)

    ``state_dict()`` is flat and holds all that an update depends on besides the network (weights,
    E_k, Adam's moments and count): a resumed run goes on bit for bit. Move it with ``.to(device)``.
    Updates never wait for the device. Fixed weights need no harmonizer.

        if harmonizer.due(step):
            harmonizer.before_step(net)
        ...                                             # forward, backward, optimiser step
        if harmonizer.due(step):
            update = harmonizer.after_step(net, train_batches, val_batch)

    Args:
        weights: Learned weights; ``raw_T`` is changed in place.
        terms: The training terms.
        validation: The objective; its E_k are changed in place.
        lr: Adam's learning rate.
        pull: Strength of the pull, 0 for none.
        interval: Optimiser steps between two updates.
        nesterov_momentum: μ of the network's optimiser if it is Nesterov's, else 0.
        autocast_dtype: Type of the two passes of an update: bfloat16, or None for float32.
        exact_gradients: ``exact_gradients()`` is a context in which gradients are not bent by
            gradient equilibrium.
        mean: Average over the ranks of a data-parallel run.
        precondition: What the optimiser's step makes of a gradient by parameter name, per unit of
            the learning rate, beside Nesterov's factor; a diagonal map. Absent: nothing, as SGD.
    """

    first_moment_T: Tensor
    second_moment_T: Tensor
    updates: Tensor

    def __init__(
        self,
        weights: HarmonizedWeights,
        terms: Terms,
        validation: BalancedValidation,
        *,
        lr: float,
        pull: float,
        interval: int,
        nesterov_momentum: float,
        autocast_dtype: torch.dtype | None = None,
        exact_gradients: Callable[[], AbstractContextManager[object]] = nullcontext,
        mean: Mean | None = None,
        precondition: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
    ) -> None:
        super().__init__()
        assert weights.learned, "fixed weights have no harmonizer"
        self.weights = weights
        self.terms = terms
        self.validation = validation
        self.lr = lr
        self.pull = pull
        self.interval = interval
        self.nesterov_momentum = nesterov_momentum
        self.autocast_dtype = autocast_dtype
        self.exact_gradients = exact_gradients
        self.mean = mean
        self.precondition = precondition
        self.register_buffer("first_moment_T", torch.zeros_like(weights.raw_T))
        self.register_buffer("second_moment_T", torch.zeros_like(weights.raw_T))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._inputs: StepInputs | None = None
        self._kept = False

    def due(self, step: int) -> bool:
        """Whether the weights are updated after optimiser step ``step`` (0-based)."""
        return (step + 1) % self.interval == 0

    def before_step(self, net: nn.Module) -> None:
        """Keep what the coming step reads: call it before the step's first forward pass."""
        if self._inputs is None:
            self._inputs = StepInputs.of(net)
        else:
            self._inputs.refresh(net)
        self._kept = True

    def after_step(
        self,
        net: nn.Module,
        train_batches: Sequence[Batch],
        val_batch: Batch,
        step_ok: Tensor | None = None,
    ) -> WeightUpdate:
        """Update the weights after the optimiser's step.

        Args:
            net: The bare module that took the step.
            train_batches: The micro-batches of the step in their order.
            val_batch: A validation batch, unaugmented.
            step_ok: Bool scalar on the device; False if the optimiser's step was skipped, which
                makes this update do nothing.
        """
        assert self._kept, "before_step was not called"
        assert self._inputs is not None
        self._kept = False
        with self.exact_gradients():
            upper = validation_gradient(
                net,
                self.validation,
                val_batch,
                autocast_dtype=self.autocast_dtype,
                mean=self.mean,
            )
        direction = upper.direction
        if self.precondition is not None:
            direction = self.precondition(direction)
        hypergradient_T = hypergradient(
            net,
            self.terms,
            self._inputs,
            direction,
            train_batches,
            nesterov_momentum=self.nesterov_momentum,
            autocast_dtype=self.autocast_dtype,
            mean=self.mean,
        )
        applied = hypergradient_T.isfinite().all()
        if step_ok is not None:
            applied = applied & step_ok
        before = [buffer.clone() for buffer in self.buffers()]
        self.validation.update(upper.ce_K)
        self._descend(hypergradient_T)
        for buffer, old in zip(self.buffers(), before, strict=True):
            buffer.copy_(torch.where(applied, buffer, old))
        return WeightUpdate(applied, upper.loss, upper.ce_K, hypergradient_T)

    def _descend(self, hypergradient_T: Tensor) -> None:
        """One Adam step of the learned vector (Kingma & Ba, ICLR 2015, Alg. 1), and the pull."""
        raw_T = self.weights.raw_T.detach().requires_grad_()
        with torch.enable_grad():
            weights_T = self.weights.at(raw_T)
        (gradient_T,) = torch.autograd.grad(weights_T, raw_T, hypergradient_T.to(weights_T.dtype))

        self.updates += 1
        self.first_moment_T.lerp_(gradient_T, 1 - BETA1)
        self.second_moment_T.lerp_(gradient_T.square(), 1 - BETA2)
        # 1 − βⁿ, without its cancellation in float32
        bias1 = -torch.expm1(self.updates * math.log(BETA1))
        bias2 = -torch.expm1(self.updates * math.log(BETA2))
        adam_T = (self.first_moment_T / bias1) / ((self.second_moment_T / bias2).sqrt() + EPSILON)
        self.weights.raw_T -= self.lr * (adam_T + self.pull * self.weights.raw_T)
