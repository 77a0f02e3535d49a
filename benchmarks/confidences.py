"""Accuracy at a budget with each confidence, over several networks; what AUROC says about it.

    python benchmarks/confidences.py --names A B --val A/val.safetensors B/val.safetensors \\
        --test A/test.safetensors B/test.safetensors

The policy is ``optimal``, fitted on val and read on test, over 33 budgets from the first exit's
cost to the last one's; differences are paired over the test images. Writes
benchmarks/results/confidences.json. K exits, N samples, B budgets.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
from harness import options, write_record
from policies import difference, show

from hdkd_cli.choices import ConfidenceKind, FixedCombinationKind
from hdkd_cli.evaluation.answers import Curve
from hdkd_cli.evaluation.bootstrap import RESAMPLES
from hdkd_cli.evaluation.calibration import Reading, fit_policy
from hdkd_cli.evaluation.scores import Scores, read_scores

CONFIDENCES = get_args(ConfidenceKind)


def compare(network: str, val: Scores, test: Scores) -> list[dict[str, object]]:
    """A row for each combination and confidence."""
    budget_B = np.linspace(val.macs_K[0], val.macs_K[-1], 33).tolist()
    rows, right = [], {}
    for combination in get_args(FixedCombinationKind):
        for confidence in CONFIDENCES:
            policy = fit_policy(
                "optimal", val, combination=combination, confidence=confidence,
                temperature=False, budgets_macs=budget_B,
            )  # fmt: skip
            chosen = [policy.points.index(policy.select(budget)) for budget in budget_B]
            right[confidence] = Curve.of(policy, test).correct_PN[chosen].mean(axis=0)
            reading = Reading(test, policy.combination, policy.temperatures, confidence)
            early = slice(test.num_exits - 1)
            rows.append(
                {
                    "network": network,
                    "combination": combination,
                    "confidence": confidence,
                    "test_mean_pct": 100 * float(right[confidence].mean()),
                    "over_max_prob": difference(right[confidence], right["max-prob"]),
                    "auroc": reading.auroc_K[early],
                    "auroc_settled": reading.auroc_settled_K[early],
                }
            )
    return rows


def main() -> None:
    """Measure, print and write the result."""
    given = options(__doc__, names=[""], val=[Path()], test=[Path()], threads=1)
    rows = []
    samples = {}
    for name, *paths in zip(given.names, given.val, given.test, strict=True):
        val, test = map(read_scores, paths)
        samples[name] = {"val": val.num_samples, "test": test.num_samples}
        rows += compare(name, val, test)
    print(f"{'':58}mean of 33   over max-prob (95 %)        AUROC right, settled")
    for row in rows:
        known = ([one for one in row[key] if one is not None] for key in ("auroc", "auroc_settled"))
        means = (np.mean(values) if values else np.nan for values in known)
        print(
            f"{row['network'][:31]:32}{row['combination']:15}{row['confidence']:11}"
            f"{row['test_mean_pct']:10.2f}   {show(row['over_max_prob']):27}"
            + "  ".join(f"{mean:.4f}" for mean in means)
        )
    path = write_record(
        "confidences",
        "accuracy at a budget of optimal policies with each confidence, fitted on val and read "
        "on test",
        samples=samples,
        resamples=RESAMPLES,
        rows=rows,
    )
    print(path)


if __name__ == "__main__":
    main()
