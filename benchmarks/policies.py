"""Accuracy at a budget: geometric and searched thresholds, every combination of exits; and whether
risk control keeps its promise.

    python benchmarks/policies.py --val VAL.safetensors --test TEST.safetensors

Everything is fitted on the first score file and read on the second. Writes
benchmarks/results/policies.json (--name: another). K exits, N samples, P points, B budgets.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import get_args

import numpy as np
from harness import options, write_record

from hdkd_cli.choices import CombinationKind, GuaranteeKind, RiskKind
from hdkd_cli.evaluation.answers import Curve
from hdkd_cli.evaluation.bootstrap import RESAMPLES, paired_difference
from hdkd_cli.evaluation.calibration import Reading, fit_policy
from hdkd_cli.evaluation.policies.risk import last_safe, losses, promise, safe_to_fast
from hdkd_cli.evaluation.scores import Scores, read_scores
from hdkd_cli.evaluation.simulate import simulate

SHOWN_FRACS = (0.35, 0.5, 0.7, 0.85)  # 8, 12, 16, 20 M of the 23.5 M of a 5-exit CIFAR network
SEARCHES = ("geometric", "optimal")
COMBINATIONS = get_args(CombinationKind)
HALVES = 200


def compare(val: Scores, test: Scores) -> list[dict[str, object]]:
    """A row for each combination and way of finding thresholds."""
    spread_B = np.linspace(val.macs_K[0], val.macs_K[-1], 33)
    shown_B = [8e6, 12e6, 16e6, 20e6]
    if not val.macs_K[0] <= 8e6 < 20e6 <= val.macs_K[-1]:
        shown_B = [frac * val.macs_K[-1] for frac in SHOWN_FRACS]
    rows, right = [], {}
    for combination, kind in itertools.product(COMBINATIONS, SEARCHES):
        policy = fit_policy(
            kind, val, combination=combination, confidence="max-prob", temperature=False,
            budgets_macs=[*shown_B, *spread_B.tolist()],
        )  # fmt: skip
        right_PN = Curve.of(policy, test).correct_PN
        at_shown = right_PN[: len(shown_B)].mean(axis=1)
        policy = policy.model_copy(update={"points": policy.points[len(shown_B) :]})
        # what a budget buys: the best on val that costs no more, the cheaper on ties
        chosen = [policy.points.index(policy.select(float(budget))) for budget in spread_B]
        right[combination, kind] = right_PN[len(shown_B) :][chosen].mean(axis=0)
        rows.append(
            {
                "combination": combination,
                "policy": kind,
                "budgets_macs": shown_B,
                "test_top1_pct": (100 * at_shown).tolist(),
                "val_mean_pct": float(np.mean([policy.points[p].val_top1_pct for p in chosen])),
                "test_mean_pct": 100 * float(right[combination, kind].mean()),
            }
        )
        base = right[combination, "geometric"]
        published = right["single", "geometric"]
        rows[-1]["over_geometric"] = difference(right[combination, kind], base)
        rows[-1]["over_published"] = difference(right[combination, kind], published)
    return rows


def difference(ours_N: np.ndarray, theirs_N: np.ndarray) -> dict[str, object]:
    """Mean paired difference in points, and its interval."""
    found = paired_difference(ours_N, theirs_N)
    return {"mean": 100 * found.value, "interval": [100 * found.low, 100 * found.high]}


def show(gain: dict[str, object]) -> str:
    """``mean (low to high)``."""
    low, high = gain["interval"]
    return f"{gain['mean']:+.2f} ({low:+.2f} to {high:+.2f})"


def risks(val: Scores, pool: Scores, delta: float) -> list[dict[str, object]]:
    """Risk over the whole pool when a random half of it is the calibration split.

    ``naive`` takes the fastest point whose risk on the half is at most ε: it must fail.
    """
    reading = Reading.fit(val, "cost-weighted", "max-prob", temperature=False)
    family_PK = safe_to_fast(reading.table)
    table = reading.read(pool)
    cost_P = np.array(table.macs_K)[simulate(table, family_PK).exit_PN].mean(axis=1)
    rows = []
    for loss, epsilon in itertools.product(get_args(RiskKind), (0.02, 0.05, 0.1)):
        loss_PN = losses(table, family_PK, loss)
        risk_P = loss_PN.mean(axis=1)
        random = np.random.default_rng(0)
        places: dict[str, list[int]] = {kind: [] for kind in (*get_args(GuaranteeKind), "naive")}
        n = table.num_samples // 2
        for _ in range(HALVES):
            half_PN = loss_PN[:, random.permutation(table.num_samples)[:n]]
            for kind in get_args(GuaranteeKind):
                promised = promise(kind, loss, epsilon=epsilon, delta=delta, n=n)
                places[kind].append(last_safe(half_PN, promised))
            places["naive"].append(int(np.flatnonzero(half_PN.mean(axis=1) <= epsilon)[-1]))
        for kind, chosen in places.items():
            rows.append(
                {
                    "guarantee": kind,
                    "loss": loss,
                    "epsilon": epsilon,
                    "delta": delta if kind != "crc" else None,
                    "share_above_epsilon": float((risk_P[chosen] > epsilon).mean()),
                    "mean_risk": float(risk_P[chosen].mean()),
                    "mean_macs": float(cost_P[chosen].mean()),
                }
            )
    return rows


def main() -> None:
    """Measure, print and write the result."""
    given = options(__doc__, val=Path, test=Path, delta=0.1, name="policies", threads=1)
    val, test = read_scores(given.val), read_scores(given.test)
    comparison = compare(val, test)
    budgets = " ".join(f"{b / 1e6:6.2f}M" for b in comparison[0]["budgets_macs"])
    print(f"{'':25}{budgets}   mean of 33   over geometric (95 %)      over the published policy")
    for row in comparison:
        shown = " ".join(f"{p:7.2f}" for p in row["test_top1_pct"])
        print(
            f"{row['combination']:14}{row['policy']:11}{shown}   {row['test_mean_pct']:10.2f}   "
            f"{show(row['over_geometric']):27}{show(row['over_published'])}"
        )
    guarantees = risks(val, test, given.delta)
    print(f"\n{HALVES} random halves as calibration: share of runs with a risk above E")
    for row in guarantees:
        print(
            f"{row['loss']:14}E {row['epsilon']:<5g} {row['guarantee']:6}"
            f"{row['share_above_epsilon']:7.3f}   mean risk {row['mean_risk']:.4f}   "
            f"{row['mean_macs'] / 1e6:.2f} M"
        )
    path = write_record(
        given.name,
        "accuracy at a budget and kept promises of exit policies, fitted on val and read on test",
        samples={"val": val.num_samples, "test": test.num_samples},
        resamples=RESAMPLES,
        halves=HALVES,
        comparison=comparison,
        guarantees=guarantees,
    )
    print(path)


if __name__ == "__main__":
    main()
