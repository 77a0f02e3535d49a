"""The ``fitted`` combination: weights and temperatures with the lowest likelihood loss.

K exits, N samples, B samples of a batch, C classes; J exits reached, J = k + 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.evaluation.combination import chunks, fixed_combination
from hdkd_cli.evaluation.measures import log_softmax
from hdkd_cli.evaluation.policy import Combination
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.temperature import MAX_TEMPERATURE, fit_temperatures

Floats = NDArray[np.float64]

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


def _fit_exit(scores: Scores, k: int, temperature: float) -> Floats:
    """u (J,) of exit k, by projected Newton steps that never go up."""
    u_J = np.full(k + 1, 1 / (k + 1))
    loss, gradient_J, hessian_JJ = _objective(scores, u_J, temperature)
    for _ in range(_MAX_STEPS):
        step_J = _bounded_step(gradient_J, hessian_JJ, u_J)
        while np.abs(step_J).max() > _TOLERANCE:
            tried = _objective(scores, u_J + step_J, temperature)
            if tried[0] <= loss + _ROUNDING:
                break
            step_J = step_J / 2
        else:
            break
        u_J = u_J + step_J
        loss, gradient_J, hessian_JJ = tried
    return u_J


def _objective(scores: Scores, u_J: Floats, temperature: float) -> tuple[float, Floats, Floats]:
    """The loss at u, its gradient (J,) and its Hessian (J, J), in float64."""
    from_mean_J = u_J - 1 / len(u_J)
    pull = _PULL_SAMPLES
    loss = pull / 2 * float(from_mean_J @ from_mean_J)
    gradient_J = pull * from_mean_J
    hessian_JJ = pull * np.eye(len(u_J))
    for samples in chunks(scores):
        labels_B = scores.labels_N[samples]
        z_JBC = scores.logits_KNC[: len(u_J), samples].astype(np.float32)
        z_JBC /= np.float32(temperature)
        # Relative to the label's logit, whose own term is then zero.
        z_JBC -= np.take_along_axis(z_JBC, labels_B[None, :, None], 2)
        log_p_BC = log_softmax(np.tensordot(u_J.astype(np.float32), z_JBC, 1))
        weighted_JBC = np.exp(log_p_BC) * z_JBC
        mean_JB = weighted_JBC.sum(2)
        loss -= float(np.take_along_axis(log_p_BC, labels_B[:, None], 1).sum())
        gradient_J += mean_JB.sum(1)
        rows = (len(u_J), -1)
        hessian_JJ += weighted_JBC.reshape(rows) @ z_JBC.reshape(rows).T - mean_JB @ mean_JB.T
    n = scores.num_samples
    return loss / n, gradient_J / n, hessian_JJ / n


def _bounded_step(gradient_J: Floats, hessian_JJ: Floats, u_J: Floats) -> Floats:
    """argmin over d of g·d + ½ d·H·d with u + d ≥ 0, by cyclic coordinate descent."""
    step_J = np.zeros_like(u_J)
    for _ in range(1000):
        before_J = step_J.copy()
        for j in range(len(u_J)):
            slope = gradient_J[j] + hessian_JJ[j] @ step_J
            step_J[j] = max(step_J[j] - slope / hessian_JJ[j, j], -u_J[j])
        if np.abs(step_J - before_J).max() < _TOLERANCE / 10:
            break
    return step_J
