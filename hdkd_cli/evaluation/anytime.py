"""Anytime prediction: how good each exit is when all samples leave there.

K exits, N samples, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.evaluation.combination import combined_chunks
from hdkd_cli.evaluation.measures import log_softmax
from hdkd_cli.evaluation.policy import Combination
from hdkd_cli.evaluation.reliability import reliability
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.table import tabulate
from hdkd_cli.records.evaluation import Anytime, AnytimeExit, ClassAccuracy


def anytime(
    scores: Scores,
    combination: Combination,
    temperatures_K: Sequence[float],
    *,
    ece_bins: int,
    run: str | None,
) -> Anytime:
    """Accuracy, likelihood and calibration of each exit against its cost.

    Args:
        scores: The split to evaluate on.
        combination: How an exit uses the exits before it.
        temperatures_K: Their temperatures.
        ece_bins: Bins of the calibration error.
        run: The run's name for the record.
    """
    costs = {
        "macs": scores.macs_K,
        "macs_eager": scores.macs_eager_K,
        "ops": scores.ops_K,
        "params": scores.params_K,
    }
    return Anytime(
        run=run,
        split=scores.meta.get("split"),
        combination=combination.kind,
        samples=scores.num_samples,
        exits=tuple(
            AnytimeExit.model_validate(
                {
                    "exit": k + 1,
                    **{name: cost_K and cost_K[k] for name, cost_K in costs.items()},
                    **_measure(scores, k, combination, temperature, ece_bins),
                }
            )
            for k, temperature in enumerate(temperatures_K)
        ),
        images=scores.meta.get("images"),
    )


def per_class(
    scores: Scores,
    combination: Combination,
    temperatures_K: Sequence[float],
    classes: Sequence[str] | None = None,
) -> tuple[tuple[ClassAccuracy, ...], tuple[tuple[int, ...], ...]]:
    """Accuracy of every exit on the images of each class, and the last exit's confusion matrix.

    Args:
        scores: The split to evaluate on.
        combination: How an exit uses the exits before it.
        temperatures_K: Their temperatures.
        classes: Names; None: classes are called by their numbers.

    Returns:
        (C,) accuracies, and (C, C) counts: images of class row that are taken for column.
    """
    number = scores.num_classes
    table = tabulate(scores, combination, temperatures_K, "max-prob")
    samples_C = np.bincount(table.labels_N, minlength=number)
    right_KC = [np.bincount(table.labels_N[right_N], minlength=number).tolist()
                for right_N in table.correct_KN]  # fmt: skip
    accuracies = tuple(
        ClassAccuracy(
            label=c,
            class_name=str(c) if classes is None else classes[c],
            samples=count,
            top1_pct=tuple(100 * right_C[c] / count if count else None for right_C in right_KC),
        )
        for c, count in enumerate(samples_C.tolist())
    )
    pair_N = table.labels_N * number + table.prediction_KN[-1]
    confusion_CC = np.bincount(pair_N, minlength=number**2).reshape(number, number)
    return accuracies, tuple(map(tuple, confusion_CC.tolist()))


def most_often_taken_for(label: int, count_C: Sequence[int]) -> tuple[int, int]:
    """The class that images of ``label`` are most often taken for by mistake, and how many are.

    Args:
        label: The class.
        count_C: Its row of the confusion matrix.
    """
    wrong_C = [0 if c == label else count for c, count in enumerate(count_C)]
    often = max(range(len(wrong_C)), key=wrong_C.__getitem__)
    return often, wrong_C[often]


def _measure(
    scores: Scores, k: int, combination: Combination, temperature: float, ece_bins: int
) -> dict[str, float | None]:
    rank_N = np.empty(scores.num_samples, np.int64)
    nll_N = np.empty(scores.num_samples)
    max_prob_N = np.empty(scores.num_samples, np.float32)
    for samples, logits_BC in combined_chunks(scores, k, combination, temperature):
        labels_B1 = scores.labels_N[samples, None]
        true_B1 = np.take_along_axis(logits_BC, labels_B1, 1)
        # Equal logits rank by class number, so that rank 0 is what argmax predicts.
        earlier_BC = np.arange(scores.num_classes) < labels_B1
        ahead_BC = (logits_BC > true_B1) | ((logits_BC == true_B1) & earlier_BC)
        rank_N[samples] = ahead_BC.sum(1)
        log_p_BC = log_softmax(logits_BC)
        nll_N[samples] = -np.take_along_axis(log_p_BC, labels_B1, 1)[:, 0]
        max_prob_N[samples] = np.exp(log_p_BC.max(1))
    correct_N = rank_N == 0
    confidence_N = max_prob_N.astype(np.float64)
    nll = float(nll_N.mean())
    return {
        "top1_pct": 100 * float(correct_N.mean()),
        "top5_pct": 100 * float((rank_N < 5).mean()),
        "nll": nll if math.isfinite(nll) else None,
        "ece_pct": 100 * expected_calibration_error(confidence_N, correct_N, ece_bins),
        "auroc": auroc(confidence_N, correct_N),
    }


def expected_calibration_error(
    confidence_N: NDArray[np.float64], correct_N: NDArray[np.bool_], bins: int
) -> float:
    """Σ_b n_b/N · |accuracy_b − confidence_b| over equal-width bins (i/M, (i+1)/M].

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 5.
    """
    binned = reliability(confidence_N, correct_N, bins)
    gap_M = np.abs(binned.accuracy_M - binned.confidence_M)
    return float(np.nansum(binned.count_M * gap_M) / len(confidence_N))


def auroc(confidence_N: NDArray[np.float64], correct_N: NDArray[np.bool_]) -> float | None:
    """P(a right answer is more confident than a wrong one), ties half; None if all are alike.

    The Mann-Whitney statistic, by the mean ranks of the confidences.
    """
    right = int(correct_N.sum())
    wrong = len(correct_N) - right
    if right == 0 or wrong == 0:
        return None
    _, place_N, count = np.unique(confidence_N, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(count) - (count - 1) / 2
    above = mean_rank[place_N][correct_N].sum() - right * (right + 1) / 2
    return float(above / (right * wrong))
