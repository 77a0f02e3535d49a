"""Differences over seeds: two methods trained with the same seeds, one difference per seed.

An interval over test images says how a trained network would do on other images; only seeds say how
another training run would do. Two intervals are given, because with few seeds neither is right for
sure: Student's t assumes normal differences (Student, "The probable error of a mean", Biometrika
6, 1908), the percentile bootstrap assumes nothing about them but is too narrow for a handful
(Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).
S seeds, C settings, M comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hdkd_cli.evaluation.bootstrap import LEVEL, paired_difference


@dataclass(frozen=True)
class SeedDifference:
    """The mean difference over seeds with two 95 % intervals.

    Attributes:
        value: Mean of the differences, other minus first.
        per_seed: The differences themselves, in the order that they were given.
        deviation: Their standard deviation (n − 1).
        t_low: Lower end of Student's t interval; None: all differences are equal, which shows no
            spread to measure against.
        t_high: Upper end of it, likewise.
        bootstrap_low: Lower end of the percentile bootstrap interval over seeds.
        bootstrap_high: Upper end of it.
        p: Two-sided p-value of the paired t test, likewise, for this comparison alone; `holm`
            adjusts several.
    """

    value: float
    per_seed: tuple[float, ...]
    deviation: float
    t_low: float | None
    t_high: float | None
    bootstrap_low: float
    bootstrap_high: float
    p: float | None


def over_seeds(first_S: ArrayLike, other_S: ArrayLike) -> SeedDifference:
    """mean(other) − mean(first), paired by seed, with its intervals and p-value.

    Args:
        first_S: A number per seed, such as an accuracy in percent; at least two.
        other_S: The same seeds' numbers on the other side, in the same order.
    """
    difference_S = np.asarray(other_S, np.float64) - np.asarray(first_S, np.float64)
    assert np.shape(first_S) == np.shape(other_S) == (len(difference_S),)
    seeds = len(difference_S)
    assert seeds > 1, "one seed says nothing about other seeds"
    mean, deviation = float(difference_S.mean()), float(difference_S.std(ddof=1))
    # Accuracies that differ by the same number of images differ by rounding alone.
    equal = np.ptp(difference_S) <= 1e-9 * max(1.0, abs(mean))
    error = deviation / math.sqrt(seeds)
    half = None if equal else _t_quantile(seeds - 1) * error
    resampled = paired_difference(other_S, first_S)
    return SeedDifference(
        value=mean,
        per_seed=tuple(difference_S.tolist()),
        deviation=deviation,
        t_low=None if half is None else mean - half,
        t_high=None if half is None else mean + half,
        bootstrap_low=resampled.low,
        bootstrap_high=resampled.high,
        p=None if equal else _t_test(mean, error, seeds - 1),
    )


@dataclass(frozen=True)
class SettingsDifference:
    """The mean over settings of the mean differences over seeds.

    Attributes:
        value: That mean.
        t_low: Lower end of its 95 % t interval; None: no spread to measure against.
        t_high: Upper end of it, likewise.
        p: Two-sided p-value, likewise, for this comparison alone.
    """

    value: float
    t_low: float | None
    t_high: float | None
    p: float | None


def over_settings(differences_CS: Sequence[Sequence[float]]) -> SettingsDifference:
    """What several settings say together, each counting alike.

    Variances may differ between settings, so the degrees of freedom are those of Welch ("The
    generalization of Student's problem when several different population variances are involved",
    Biometrika 34, 1947) and Satterthwaite ("An approximate distribution of estimates of variance
    components", Biometrics Bulletin 2, 1946). The interval says what other seeds would do in these
    settings, not what would happen in others.

    Args:
        differences_CS: The differences by seed of each setting; at least two of each.
    """
    values_CS = [np.asarray(differences_S, np.float64) for differences_S in differences_CS]
    assert values_CS
    assert all(len(values_S) > 1 for values_S in values_CS)
    value = float(np.mean([values_S.mean() for values_S in values_CS]))
    # each setting's part of the variance of that mean
    parts_C = np.array([v_S.var(ddof=1) / len(v_S) for v_S in values_CS]) / len(values_CS) ** 2
    error = math.sqrt(parts_C.sum())
    if error <= 1e-9 * max(1.0, abs(value)):
        return SettingsDifference(value, None, None, None)
    freedom_C = np.array([len(values_S) - 1 for values_S in values_CS])
    freedom = float(parts_C.sum() ** 2 / (parts_C**2 / freedom_C).sum())
    half = _t_quantile(freedom) * error
    return SettingsDifference(value, value - half, value + half, _t_test(value, error, freedom))


def holm(p_M: ArrayLike) -> NDArray[np.float64]:
    """p-values adjusted so that all M together are wrong with the stated probability at most.

    Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6, 1979:
    with p sorted upwards, the i-th (from 1) becomes the largest of (M − j + 1) · p_j over j ≤ i,
    at most 1. It needs no independence of the comparisons.
    """
    p_M = np.asarray(p_M, np.float64)
    order_M = np.argsort(p_M, kind="stable")
    count_M = np.arange(len(p_M), 0, -1)
    adjusted_M = np.empty_like(p_M)
    adjusted_M[order_M] = np.minimum(np.maximum.accumulate(count_M * p_M[order_M]), 1)
    return adjusted_M


def _t_quantile(freedom: float) -> float:
    from scipy.special import stdtrit  # a tenth of the start-up time of scipy.stats

    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def _t_test(mean: float, error: float, freedom: float) -> float:
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(mean) / error))
