"""The ``fitted`` combination: weights and temperatures with the lowest likelihood loss.

K exits, N samples, B samples of a batch, C classes; J exits reached, J = k + 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hdkd_cli.evaluation.combination import chunks, fixed_combination
from hdkd_cli.evaluation.policy import Combination
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.temperature import MAX_TEMPERATURE, fit_temperatures

# The pull towards `mean` weighs as much as this many samples.
_PULL_SAMPLES = 100.0
# Steps in u, of which 1/J is typical; NLLs are summed from float32 logarithms.
_TOLERANCE, _ROUNDING = 1e-5, 1e-6
_MAX_STEPS = 50


def fitted_combination(scores: Scores) -> tuple[Combination, tuple[float, ...]]:
    """w and τ of every exit by NLL on ``scores``, with a pull towards ``mean``.

    With u_j = w_kj τ'/τ_k, where τ' is the best temperature of ``mean``, exit k says
    softmax( Σ_j u_j z_j / τ' ). Its NLL is convex in u, and so is all of

        mean NLL + ½ · 100/N · ‖u − 1/J‖²,   u ≥ 0,

    which Newton's method minimises.

    Args:
        scores: Scores of a held-out split.

    Returns:
        The combination, rows non-negative with sum 1, and the temperatures (K,).
    """
    mean = fixed_combination("mean", scores.macs_K)
    rows: list[tuple[float, ...]] = []
    temperatures: list[float] = []
    for k, mean_temperature in enumerate(fit_temperatures(scores, mean)):
        u_J = _fit_exit(scores, k, mean_temperature).tolist()
        total = sum(u_J)
        if total * MAX_TEMPERATURE <= mean_temperature:  # nothing these exits say is of use
            rows.append(mean.weights[k])
            temperatures.append(MAX_TEMPERATURE)
        else:
            rows.append(tuple(u / total for u in u_J) + (0.0,) * (scores.num_exits - 1 - k))
            temperatures.append(mean_temperature / total)
    return Combination(kind="fitted", weights=tuple(rows)), tuple(temperatures)


def _fit_exit(scores: Scores, k: int, temperature: float) -> Tensor:
    """u (J,) of exit k, by projected Newton steps that never go up."""
    u_J = torch.full((k + 1,), 1 / (k + 1), dtype=torch.float64)
    loss, gradient_J, hessian_JJ = _objective(scores, u_J, temperature)
    for _ in range(_MAX_STEPS):
        step_J = _bounded_step(gradient_J, hessian_JJ, u_J)
        while step_J.abs().max() > _TOLERANCE:
            tried = _objective(scores, u_J + step_J, temperature)
            if tried[0] <= loss + _ROUNDING:
                break
            step_J = step_J / 2
        else:
            break
        u_J = u_J + step_J
        loss, gradient_J, hessian_JJ = tried
    return u_J


def _objective(scores: Scores, u_J: Tensor, temperature: float) -> tuple[float, Tensor, Tensor]:
    """The loss at u, its gradient (J,) and its Hessian (J, J), in float64."""
    from_mean_J = u_J - 1 / len(u_J)
    pull = _PULL_SAMPLES
    loss = pull / 2 * from_mean_J.square().sum()
    gradient_J = pull * from_mean_J
    hessian_JJ = pull * torch.eye(len(u_J), dtype=torch.float64)
    for samples in chunks(scores):
        labels_B = scores.labels_N[samples]
        z_JBC = scores.logits_KNC[: len(u_J), samples].float() / temperature
        # Relative to the label's logit, whose own term is then zero.
        z_JBC = z_JBC - z_JBC.gather(2, labels_B.expand(len(u_J), -1)[..., None])
        log_p_BC = torch.einsum("j,jbc->bc", u_J.float(), z_JBC).log_softmax(1)
        weighted_JBC = log_p_BC.exp() * z_JBC
        mean_JB = weighted_JBC.sum(2).double()
        loss = loss - log_p_BC.gather(1, labels_B[:, None]).sum(dtype=torch.float64)
        gradient_J += mean_JB.sum(1)
        hessian_JJ += (weighted_JBC.flatten(1) @ z_JBC.flatten(1).T).double() - mean_JB @ mean_JB.T
    n = scores.num_samples
    return float(loss) / n, gradient_J / n, hessian_JJ / n


def _bounded_step(gradient_J: Tensor, hessian_JJ: Tensor, u_J: Tensor) -> Tensor:
    """argmin over d of g·d + ½ d·H·d with u + d ≥ 0, by cyclic coordinate descent."""
    step_J = torch.zeros_like(u_J)
    for _ in range(1000):
        before_J = step_J.clone()
        for j in range(len(u_J)):
            slope = gradient_J[j] + hessian_JJ[j] @ step_J
            step_J[j] = torch.maximum(step_J[j] - slope / hessian_JJ[j, j], -u_J[j])
        if (step_J - before_J).abs().max() < _TOLERANCE / 10:
            break
    return step_J
