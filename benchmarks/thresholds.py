"""How long the published 39 operating points take on ImageNet-sized scores.

    python benchmarks/thresholds.py [--samples 50000 --exits 11 --classes 1000]

Writes benchmarks/results/thresholds.json. One core; confidences and fitting are timed apart.
"""

from __future__ import annotations

import time

import numpy as np
from claims import finish
from harness import in_turn, options, spread

from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.evaluation.policies.geometric import PUBLISHED_RHOS, family
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.simulate import simulate
from hdkd_cli.evaluation.table import ExitTable, tabulate


def synthetic(exits: int, samples: int, classes: int) -> Scores:
    """Scores whose exits get better: the true class stands out more and more."""
    random = np.random.default_rng(0)
    logits_KNC = random.standard_normal((exits, samples, classes), np.float32)
    labels_N = random.integers(classes, size=samples)
    for k in range(exits):
        logits_KNC[k, np.arange(samples), labels_N] += 3 + 3 * k / exits
    return Scores(logits_KNC, labels_N, tuple(range(1_000_000, 1_000_000 * (exits + 1), 1_000_000)))


def fit(table: ExitTable) -> None:
    """All 39 points, thresholds and what they do, from a table that is not sorted yet."""
    fresh = ExitTable(table.confidence_KN, table.prediction_KN, table.labels_N, table.macs_K)
    simulate(fresh, family(fresh, PUBLISHED_RHOS))


def measure(exits: int, samples: int, classes: int, trials: int) -> dict[str, object]:
    """Seconds for the confidences, once, and for fitting, several times."""
    scores = synthetic(exits, samples, classes)
    combination = fixed_combination("single", scores.macs_K)
    began = time.perf_counter()
    table = tabulate(scores, combination, (1.0,) * scores.num_exits, "max-prob")
    confidence_seconds = time.perf_counter() - began
    seconds = in_turn({"fit": lambda: fit(table)}, trials=trials, warmup=0)["fit"]
    return {
        "scores": [exits, samples, classes],
        "trials": trials,
        "confidence_seconds": confidence_seconds,
        "fit_seconds": spread(seconds),
    }


def main() -> None:
    """Time it, write the record, print what it says."""
    given = options(__doc__, samples=50_000, exits=11, classes=1_000, trials=5, threads=1)
    facts = measure(given.exits, given.samples, given.classes, given.trials)
    finish("thresholds", "39 geometric operating points: fit and simulate, one core", **facts)


if __name__ == "__main__":
    main()
