"""The derivative of the validation objective with respect to the weights, in forward mode.

K exits, B batch, C classes, T terms.

Source: Wang & Li, AAAI 2021 (one-step approximation of the lower level). [ours]: one optimiser
step b ← μb + g + λθ, θ' = θ − ηb with g = Σ_t γ_t ∇ℓ_t(θ) is linear in γ, so with
v = ∇L_val(θ')

    ∂L_val(θ') / ∂γ_t = −η · ⟨v, ∇ℓ_t(θ)⟩ = −η · d/dε ℓ_t(θ + εv) |_{ε=0}        (Nesterov: −η(1+μ))

and a single Jacobian-vector product of the training batch at θ along v holds the derivatives of
all terms. The step really taken is the lookahead: keep what the step reads, let the optimiser
step, then call ``validation_gradient`` at θ' and ``hypergradient`` at θ. Nothing here changes
parameters, ``.grad`` fields, buffers, random number generators or training flags.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from hdkd_cli.method.terms import Terms, cross_entropies
from hdkd_cli.method.validation import BalancedValidation

Batch = tuple[Tensor, Tensor]
"""Images (B, ...) and labels (B,) int64."""

Mean = Callable[[Tensor], Tensor]
"""Average of a tensor over the ranks of a data-parallel run, bit for bit the same on all of them.
It may work in place."""


@dataclass(frozen=True)
class StepInputs:
    """What the forward passes of one optimiser step read: copies of θ and the buffers, and where
    the random number generators stood.

    ``refresh`` reuses the memory, so a run holds one copy of the parameters however often it
    updates the weights.
    """

    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    generators: list[Tensor]

    @classmethod
    def of(cls, net: nn.Module) -> StepInputs:
        """Copies of ``net``'s present state."""
        parameters = {name: p.detach().clone() for name, p in net.named_parameters()}
        buffers = {name: b.clone() for name, b in net.named_buffers()}
        return cls(parameters, buffers, _generator_states(_device(net)))

    def refresh(self, net: nn.Module) -> None:
        """Copy ``net``'s present state over the old one."""
        _overwrite(self.parameters, net.named_parameters())
        _overwrite(self.buffers, net.named_buffers())
        self.generators[:] = _generator_states(_device(net))


@dataclass(frozen=True)
class ValidationGradient:
    """What one validation batch says about the present parameters.

    Attributes:
        loss: L_val, a scalar.
        ce_K: CE_k, averaged over ranks.
        direction: v = ∇_θ L_val by parameter name, averaged over ranks; parameters that L_val does
            not depend on, or that are not trained, are absent.
    """

    loss: Tensor
    ce_K: Tensor
    direction: dict[str, Tensor]


def validation_gradient(
    net: nn.Module,
    validation: BalancedValidation,
    batch: Batch,
    *,
    autocast_dtype: torch.dtype | None = None,
    mean: Mean | None = None,
) -> ValidationGradient:
    """v = ∇L_val at the present parameters, by one forward and one backward pass.

    The network runs in the mode it is in: under training, BatchNorm uses the batch's statistics.
    Whatever bends gradients on purpose (gradient equilibrium) has to be inactive. L_val is not
    linear in CE_k, so with ``mean`` every rank backpropagates its own CE_k times ∂L_val/∂CE_k at
    the averaged CE_k. E_k is read, not updated.

    Args:
        net: The bare module (no compiled or data-parallel wrapper): images → logits (K,B,C).
        validation: The objective.
        batch: Unaugmented validation images and their labels, on the device.
        autocast_dtype: None or bfloat16 (float16 would need a loss scale of its own).
        mean: Average over ranks; absent on one device.
    """
    images, labels_B = batch
    parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
    with _generators_kept(images.device), torch.enable_grad():
        buffers = {name: b.clone() for name, b in net.named_buffers()}
        with _autocast(images.device, autocast_dtype):
            logits_KBC = functional_call(net, buffers, (images,))
        local_K = cross_entropies(logits_KBC, labels_B)
        ce_K = local_K.detach().clone()
        if mean is not None:
            ce_K = mean(ce_K)
        loss = validation.loss(ce_K.requires_grad_())
        (coefficient_K,) = torch.autograd.grad(loss, ce_K)
        gradients = torch.autograd.grad(
            local_K, list(parameters.values()), coefficient_K, allow_unused=True
        )
    direction = {n: g for n, g in zip(parameters, gradients, strict=True) if g is not None}
    if mean is not None:
        averages = averaged(direction.values(), mean)
        direction = dict(zip(direction, averages, strict=True))
    return ValidationGradient(loss.detach(), ce_K.detach(), direction)


def hypergradient(
    net: nn.Module,
    terms: Terms,
    inputs: StepInputs,
    direction: Mapping[str, Tensor],
    batches: Sequence[Batch],
    *,
    nesterov_momentum: float,
    autocast_dtype: torch.dtype | None = None,
    mean: Mean | None = None,
) -> Tensor:
    """(1/η)·∂L_val(θ')/∂γ_t of the step that was taken, by one forward-mode pass.

    The network runs in the mode it is in, at the kept parameters and buffers, with the kept random
    numbers (so dropout drops what it dropped in the step), and with gradient equilibrium as in the
    step: it scales tangents as it scales gradients. All parameters are assumed to share η.

    Args:
        net: The bare module: images → logits (K,B,C), differentiable in forward mode.
        terms: The training terms.
        inputs: What the step read, kept before it. Its buffers are used up.
        direction: v by parameter name.
        batches: The micro-batches of the step in their order, equally large.
        nesterov_momentum: μ under Nesterov's momentum, 0 otherwise.
        autocast_dtype: None or bfloat16.
        mean: Average over ranks; absent on one device.

    Returns:
        (T,) in the type of the terms; divided by η, so that a falling learning rate does not
        starve the weights [ours].
    """
    device = batches[0][0].device
    tangents = []
    with _generators_kept(device), forward_mode():
        _set_generators(device, inputs.generators)
        point = {**inputs.buffers, **inputs.parameters}
        point |= {n: _dual(inputs.parameters[n], v) for n, v in direction.items()}
        for images, labels_B in batches:
            with _autocast(device, autocast_dtype):
                logits_KBC = functional_call(net, point, (images,))
            tangents.append(_tangent(terms(logits_KBC, labels_B)))
    tangent_T = torch.stack(tangents).mean(0)
    if mean is not None:
        tangent_T = mean(tangent_T)
    return -(1 + nesterov_momentum) * tangent_T


@contextmanager
def forward_mode() -> Iterator[None]:
    """Dual tensors work inside; no graph is built, and attention uses its differentiable kernel."""
    _load_forward_mode()
    with torch.no_grad(), forward_ad.dual_level(), plain_attention():
        yield


@contextmanager
def plain_attention() -> Iterator[None]:
    """Inside, attention is made of products and a softmax, also where modules evaluate.

    Its fused kernels have no forward mode, and the flop counter does not know all of them.
    """
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)


@functools.cache
def _load_forward_mode() -> None:
    """Make torch load its forward-mode rules, and keep its deprecation notice to itself."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore")
        _dual(torch.zeros(()), torch.zeros(()))


def _dual(primal: Tensor, tangent: Tensor) -> Tensor:
    dual: Tensor = forward_ad.make_dual(primal, tangent)  # type: ignore[no-untyped-call]
    return dual


def _tangent(dual: Tensor) -> Tensor:
    tangent: Tensor | None = forward_ad.unpack_dual(dual).tangent  # type: ignore[no-untyped-call]
    assert tangent is not None, "the terms do not depend on the parameters"
    return tangent


def averaged(tensors: Iterable[Tensor], mean: Mean) -> list[Tensor]:
    """Averages over ranks, in one message: one for each tensor would be slow."""
    tensors = list(tensors)
    parts = torch.split(
        mean(torch.cat([t.flatten() for t in tensors])), [t.numel() for t in tensors]
    )
    return [part.view_as(t) for t, part in zip(tensors, parts, strict=True)]


def _autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    assert dtype in (None, torch.bfloat16), f"no pass of the hypergradient runs in {dtype}"
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def _overwrite(copies: dict[str, Tensor], originals: Iterable[tuple[str, Tensor]]) -> None:
    sources = dict(originals)
    assert sources.keys() == copies.keys(), "another network than the one that was kept"
    if copies:
        torch._foreach_copy_(list(copies.values()), [t.detach() for t in sources.values()])


def _device(net: nn.Module) -> torch.device:
    return next(net.parameters()).device


def _generators(device: torch.device) -> list[torch.Generator]:
    """The default generators that a forward pass on ``device`` may draw from.

    Those of a GPU cannot be set while a CUDA graph is recorded: what is recorded must not draw.
    """
    if device.type == "cuda" and not torch.cuda.is_current_stream_capturing():
        return [torch.default_generator, torch.cuda.default_generators[device.index]]
    return [torch.default_generator]


def _generator_states(device: torch.device) -> list[Tensor]:
    return [generator.get_state() for generator in _generators(device)]


def _set_generators(device: torch.device, states: Iterable[Tensor]) -> None:
    # while a CUDA graph is recorded there may be more states than generators: the CPU's is first
    for generator, state in zip(_generators(device), states, strict=False):
        generator.set_state(state)


@contextmanager
def _generators_kept(device: torch.device) -> Iterator[None]:
    """Random numbers drawn inside are as if never drawn."""
    states = _generator_states(device)
    try:
        yield
    finally:
        _set_generators(device, states)
