"""Harmonized dense knowledge distillation (Wang & Li, AAAI 2021).

    L(θ, γ) = Σ_k γ_k CE_k + Σ_{i<j} γ_ij KD_ij        every exit learns from all later exits
    γ* = argmin_γ L_val(θ*(γ))                         and the weights from validation batches

`terms` the losses · `weights` γ · `validation` L_val · `hypergradient` ∂L_val/∂γ in forward mode ·
`harmonizer` when and how γ is updated. Knows tensors and nothing else of this package.
"""

from hdkd_cli.method.harmonizer import Harmonizer, WeightUpdate
from hdkd_cli.method.hypergradient import (
    Batch,
    StepInputs,
    ValidationGradient,
    forward_mode,
    hypergradient,
    validation_gradient,
)
from hdkd_cli.method.terms import (
    Distillation,
    Supervision,
    Term,
    TermGroup,
    Terms,
    cross_entropies,
)
from hdkd_cli.method.validation import BalancedValidation
from hdkd_cli.method.weights import HarmonizedWeights

__all__ = [
    "BalancedValidation",
    "Batch",
    "Distillation",
    "HarmonizedWeights",
    "Harmonizer",
    "StepInputs",
    "Supervision",
    "Term",
    "TermGroup",
    "Terms",
    "ValidationGradient",
    "WeightUpdate",
    "cross_entropies",
    "forward_mode",
    "hypergradient",
    "validation_gradient",
]
