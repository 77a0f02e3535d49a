"""Thresholds with a finite-sample guarantee: how much may be lost against the last exit.

A family of thresholds from safe to fast is fixed on one split; calibration samples that were used
for nothing else then say how far along it one may go.

LTT: Angelopoulos et al., "Learn then Test", 2021, with fixed-sequence testing. CRC: Angelopoulos et
al., "Conformal Risk Control", 2022. For early exits see also Jazbec et al., NeurIPS 2024.
N samples, P points of the family, K exits.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.choices import GuaranteeKind, RiskKind
from hdkd_cli.evaluation.policies.geometric import family, limits
from hdkd_cli.evaluation.policy import Guarantee
from hdkd_cli.evaluation.simulate import simulate
from hdkd_cli.evaluation.table import ExitTable

# From safe to fast. Of two exits, ρ = p/(192−p) lets p/192 of the samples wait for the second.
_RHOS = tuple(Fraction(p, 192 - p) for p in range(191, 0, -1))


def safe_to_fast(table: ExitTable) -> NDArray[np.float32]:
    """Thresholds (P, K−1): none leaves early, the geometric family by falling ρ, all leave first.

    Fixed before a calibration sample is read.
    """
    all_first_K, none_early_K = limits(table)
    return np.vstack([none_early_K, family(table, _RHOS), all_first_K])


def losses(
    table: ExitTable, thresholds_PK: NDArray[np.float32], kind: RiskKind
) -> NDArray[np.int8]:
    """Loss of each sample at each point, (P, N); 0 where it takes the last exit.

    ``disagreement``: 1[ŷ_e ≠ ŷ_K]. ``accuracy-gap``: 1[ŷ_e ≠ y] − 1[ŷ_K ≠ y], in {−1, 0, 1}.
    """
    prediction_PN = simulate(table, thresholds_PK).prediction_PN
    if kind == "disagreement":
        loss_PN: NDArray[np.int8] = (prediction_PN != table.prediction_KN[-1]).astype(np.int8)
        return loss_PN
    loss_PN = (prediction_PN != table.labels_N).astype(np.int8)
    loss_PN -= ~table.correct_KN[-1]
    return loss_PN


def last_safe(loss_PN: NDArray[np.int8], promise: Guarantee) -> int:
    """The fastest point that keeps the promise. 0, where the loss is always 0, does in any case.

    Args:
        loss_PN: `losses` of the calibration samples, from safe to fast.
        promise: What is to be guaranteed.
    """
    if promise.delta is None:
        safe_P = _crc_safe(loss_PN, promise.epsilon)
    else:
        p_values = _binary_p_values if promise.loss == "disagreement" else _gap_p_values
        safe_P = p_values(loss_PN, promise.epsilon) <= promise.delta
    # Fixed sequence: the first point that fails ends it, and the one before is taken.
    return int(np.logical_and.accumulate(safe_P[1:]).sum())


def _crc_safe(loss_PN: NDArray[np.int8], epsilon: float) -> NDArray[np.bool_]:
    """R̂ ≤ ((n+1)ε − B)/n with B = 1, of monotone losses: clamped at 0, running maximum."""
    total_P = np.maximum.accumulate(loss_PN.clip(0), axis=0).sum(axis=1, dtype=np.int64)
    safe_P: NDArray[np.bool_] = total_P + 1 <= (loss_PN.shape[1] + 1) * epsilon
    return safe_P


def _binary_p_values(loss_PN: NDArray[np.int8], epsilon: float) -> NDArray[np.float64]:
    """P(Binomial(n, ε) ≤ losses seen): of "the risk is above ε", for losses 0 and 1."""
    cdf = binomial_cdf(loss_PN.shape[1], epsilon)
    p_P: NDArray[np.float64] = cdf[loss_PN.sum(axis=1, dtype=np.int64)]
    return p_P


def _gap_p_values(loss_PN: NDArray[np.int8], epsilon: float) -> NDArray[np.float64]:
    """Of "the risk is above ε", for losses in {−1, 0, 1}: twice the smaller of two (Bonferroni).

    Clamped at 0 the loss is binary and no smaller, which is sharp for a small ε; for a large one
    it is better to look at the loss itself.
    """
    clamped_P = _binary_p_values(loss_PN.clip(0), epsilon)
    p_P: NDArray[np.float64] = 2 * np.minimum(clamped_P, _bounded_p_values(loss_PN, epsilon))
    return p_P


def _bounded_p_values(loss_PN: NDArray[np.int8], epsilon: float) -> NDArray[np.float64]:
    """The Hoeffding-Bentkus p-values, for losses in [−1, 1] moved to [0, 1].

    min{ e · BinomCDF(⌈nR̂⌉; n, ε), exp(−n · h₁(min(R̂, ε), ε)) }.
    """
    n = loss_PN.shape[1]
    total_P = (loss_PN.sum(axis=1, dtype=np.int64) + n) / 2  # a multiple of ½, exact
    bound = (epsilon + 1) / 2
    bentkus_P = math.e * binomial_cdf(n, bound)[np.ceil(total_P).astype(np.int64)]
    mean_P = np.minimum(total_P / n, bound)
    # h₁(a, b) = a log(a/b) + (1−a) log((1−a)/(1−b)), where 0 log 0 = 0
    divergence_P = (1 - mean_P) * np.log((1 - mean_P) / (1 - bound))
    some_P = mean_P > 0
    divergence_P[some_P] += mean_P[some_P] * np.log(mean_P[some_P] / bound)
    p_P: NDArray[np.float64] = np.minimum(bentkus_P, np.exp(-n * divergence_P))
    return p_P


def binomial_cdf(n: int, p: float) -> NDArray[np.float64]:
    """P(Binomial(n, p) ≤ m) for m = 0..n, (n+1,); 0 < p < 1."""
    log_factorial = np.array([math.lgamma(m + 1) for m in range(n + 1)])
    m = np.arange(n + 1)
    log_choose = log_factorial[-1] - log_factorial - log_factorial[::-1]
    log_mass = log_choose + m * math.log(p) + (n - m) * math.log1p(-p)
    cdf: NDArray[np.float64] = np.exp(log_mass).cumsum().clip(max=1)
    return cdf


def promise(
    kind: GuaranteeKind, loss: RiskKind, *, epsilon: float, delta: float, n: int
) -> Guarantee:
    """A guarantee, put in words.

    Args:
        kind: Which.
        loss: What it bounds.
        epsilon: The bound.
        delta: Probability that it fails; ``crc`` has none.
        n: Number of calibration samples.
    """
    when = {
        "ltt": f"With probability at least {100 * (1 - delta):g} % over the draw of the "
        f"{n} calibration samples",
        "crc": f"On average over draws of {n} calibration samples",
    }[kind]
    what = {
        "disagreement": f"at most {100 * epsilon:g} % of images drawn like them get another "
        "answer than the last exit's",
        "accuracy-gap": f"leaving early costs at most {100 * epsilon:g} points of accuracy "
        "against the last exit, on images drawn like them",
    }[loss]
    return Guarantee(
        kind=kind,
        loss=loss,
        epsilon=epsilon,
        delta=delta if kind == "ltt" else None,
        n=n,
        statement=f"{when}, {what}.",
    )
