"""Trained networks side by side: how far each is from the first, and whether that is noise.

All numbers are accuracies on the same images, exit by exit, and with every policy that all of them
have at equal budgets (docs/concepts/policies-and-guarantees.md). An interval over images is a
paired bootstrap; an interval over seeds needs several runs of a method (`paired`).
K exits, N samples, S seeds, P operating points, B budgets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from statistics import stdev
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.choices import CompareBy, Verdict
from hdkd_cli.errors import ScoresError
from hdkd_cli.evaluation.answers import Answers, unlike
from hdkd_cli.evaluation.bootstrap import LEVEL, RESAMPLES, paired_difference
from hdkd_cli.evaluation.paired import SeedDifference, holm, over_seeds
from hdkd_cli.records.comparison import (
    ComparedSide,
    Comparison,
    Difference,
    Incomparable,
    Level,
    Measure,
)

M = TypeVar("M", bound=Measure)

BUDGETS = 33  # equally spaced, from the first exit's cost to the last's
EVERY = 8  # of these a table shows five


class _Measure(NamedTuple):
    """One thing that is measured of every network."""

    what: str
    exit: int | None = None
    policy: str | None = None
    budgets: tuple[float, ...] = ()
    headline: bool = True  # counted among the comparisons that Holm's method adjusts for

    def pct_N(self, of: Answers) -> NDArray[np.float64]:
        """100 where a sample is right and 0 where not, averaged over the budgets."""
        exit = 1 if of.static else self.exit  # it has no other, whatever the budget
        if exit is not None:
            right_N: NDArray[np.float64] = of.correct_KN[exit - 1].astype(np.float64)
            return 100 * right_N
        assert self.policy is not None
        curve = of.curves[self.policy]
        right_BN = np.stack([curve.within(budget) for budget in self.budgets])
        right_N = right_BN.mean(axis=0)
        return 100 * right_N

    def place(self) -> dict[str, object]:
        """The fields of a record that say what was measured."""
        budget = self.budgets[0] if len(self.budgets) == 1 else None
        return {
            "what": self.what, "exit": self.exit, "policy": self.policy, "budget_macs": budget,
        }  # fmt: skip


@dataclass(frozen=True)
class _Side:
    """Runs that are averaged: one run, or the seeds of a method."""

    name: str
    runs: tuple[Answers, ...]

    @property
    def seeds(self) -> tuple[int | None, ...]:
        return tuple(run.seed for run in self.runs)

    @property
    def static(self) -> bool:
        return all(run.static for run in self.runs)


def compare(
    runs: Sequence[Answers],
    *,
    by: CompareBy = "run",
    budgets: Sequence[float] = (),
) -> Comparison:
    """Differences of accuracy to the first run, or to the method of the first run.

    A network of one exit has no exit in common with one of several: it is compared with what that
    one's policies reach at its cost.

    Args:
        runs: What to compare; at least one.
        by: Whether each run stands for itself or for a seed of its method.
        budgets: Mean costs in MACs; none: 33 equally spaced ones from the first exit's cost to the
            last's, and their mean.

    Returns:
        The record. Runs on other images than the first are listed as incomparable, and no number
        is given for them.
    """
    first, *others = runs
    reasons = {run.name: reason for run in others if (reason := unlike(first, run))}
    same = [run for run in runs if run.name not in reasons]
    sides, notes = _sides(same, by)
    alike = [run for side in sides if side.static == sides[0].static for run in side.runs]
    measures = list(_measures(alike, budgets, notes))
    of_side = {
        side.name: measures
        if side.static == sides[0].static
        else list(_measures(side.runs, budgets, []))
        for side in sides
    }
    found = [
        (measure.headline, _difference(sides[0], other, measure))
        for other in sides[1:]
        for measure in (
            measures
            if other.static == sides[0].static
            else _at_the_cost_of_the_static(sides[0], other, notes)
        )
    ]
    return Comparison(
        by=by,
        dataset=first.meta.get("dataset"),
        split=first.meta.get("split"),
        samples=first.correct_KN.shape[1],
        first=sides[0].name,
        level_pct=100 * LEVEL,
        resamples=RESAMPLES,
        comparisons=sum(headline for headline, _ in found),
        sides=tuple(
            ComparedSide(
                name=side.name,
                runs=tuple(run.run for run in side.runs),
                seeds=side.seeds,
                levels=tuple(_level(side, measure) for measure in of_side[side.name]),
            )
            for side in sides
        ),
        incomparable=tuple(Incomparable(name=n, reason=r) for n, r in reasons.items()),
        notes=tuple(notes),
        differences=_adjusted(found),
    )


def brief(comparison: Comparison) -> Comparison:
    """The comparison with every eighth of a grid of 33 budgets: what a table has room for."""
    return comparison.model_copy(
        update={
            "differences": _some(comparison.differences),
            "sides": tuple(
                side.model_copy(update={"levels": _some(side.levels)}) for side in comparison.sides
            ),
        }
    )


def _some(measures: Sequence[M]) -> tuple[M, ...]:
    """``measures`` without most budgets of every run of 33 of them."""
    grids = [list(group) for _, group in groupby(measures, lambda one: one.budget_macs is not None)]
    return tuple(chain(*(grid[:: EVERY if len(grid) == BUDGETS else 1] for grid in grids)))


def refuse_nothing_to_compare(comparison: Comparison) -> None:
    """A comparison needs two sides.

    Raises:
        ScoresError: only one is left; says why the others are not comparable.
    """
    if len(comparison.sides) > 1:
        return
    reasons = "; ".join(f"{one.name}: {one.reason}" for one in comparison.incomparable)
    raise ScoresError(
        f"nothing can be compared with {comparison.first}"
        + (f" ({reasons})" if reasons else ": all runs are seeds of that one method")
    )


def _sides(runs: Sequence[Answers], by: CompareBy) -> tuple[list[_Side], list[str]]:
    if by == "run":
        return [_Side(run.name, (run,)) for run in runs], []
    notes = []
    groups: dict[str, dict[int | str, Answers]] = {}
    for run in runs:
        group = groups.setdefault(run.method, {})
        key = run.name if run.seed is None else run.seed
        if key in group:
            notes.append(f"{run.name}: seed {run.seed} of {run.method} is there already; left out")
        group.setdefault(key, run)
    sides = [_Side(name, tuple(group.values())) for name, group in groups.items()]
    for side in sides[1:]:
        common, most = len(_in_common(sides[0], side)), max(len(sides[0].runs), len(side.runs))
        how = "only they are compared" if common else "compared without pairing seeds"
        if common < most:
            notes += [f"{side.name}: {common} seeds in common with {sides[0].name}; {how}"]
    return sides, notes


def _measures(
    runs: Sequence[Answers], budgets: Sequence[float], notes: list[str]
) -> Iterator[_Measure]:
    for k in range(1, 1 + min(len(run.macs_K) for run in runs)):
        yield _Measure(f"exit {k}", exit=k)
    everywhere = set.intersection(*(set(run.curves) for run in runs))
    notes += [
        f"Policy {name} is not compared: not all of the runs have it"
        for name in sorted(set().union(*(run.curves for run in runs)) - everywhere)
    ]
    low, high = max(run.macs_K[0] for run in runs), min(run.macs_K[-1] for run in runs)
    if low >= high:
        return  # no budget leaves a choice to all
    for name in sorted(everywhere):
        grid = budgets or np.linspace(low, high, BUDGETS).tolist()
        for budget in grid:
            what = f"{name} at {budget / 1e6:.2f} M"
            yield _Measure(what, policy=name, budgets=(budget,), headline=bool(budgets))
        if len(grid) > 1:
            what = f"{name}, mean of {len(grid)} budgets"
            yield _Measure(what, policy=name, budgets=tuple(grid))


def _at_the_cost_of_the_static(first: _Side, other: _Side, notes: list[str]) -> Iterator[_Measure]:
    """What the policies of the side with several exits reach for what the other one costs."""
    static, exits = (first, other) if first.static else (other, first)
    budget = max(run.macs_K[0] for run in static.runs)
    policies = set.intersection(*(set(run.curves) for run in exits.runs))
    if not policies:
        notes.append(f"{static.name} is not compared: {exits.name} has no policy to set beside it")
    if budget < min(run.macs_K[0] for run in exits.runs):
        notes.append(f"{exits.name} has no exit as cheap as {static.name}: it answers at its first")
    for name in sorted(policies):
        what = f"{name} at {budget / 1e6:.2f} M, the cost of {static.name}"
        yield _Measure(what, policy=name, budgets=(budget,))


def _in_common(first: _Side, other: _Side) -> list[tuple[Answers, Answers]]:
    theirs = {run.seed: run for run in other.runs if run.seed is not None}
    return [(run, theirs[run.seed]) for run in first.runs if run.seed in theirs]


def _difference(first: _Side, other: _Side, measure: _Measure) -> Difference:
    pairs = _in_common(first, other)
    ours_S = [a for a, _ in pairs] or first.runs
    theirs_S = [b for _, b in pairs] or other.runs
    ours_SN = np.stack([measure.pct_N(run) for run in ours_S])
    theirs_SN = np.stack([measure.pct_N(run) for run in theirs_S])
    images = paired_difference(theirs_SN.mean(axis=0), ours_SN.mean(axis=0))
    seeds = over_seeds(ours_SN.mean(axis=1), theirs_SN.mean(axis=1)) if len(pairs) > 1 else None
    low, high, over = images.low, images.high, "images"
    if seeds is not None and seeds.t_low is not None and seeds.t_high is not None:
        low, high, over = seeds.t_low, seeds.t_high, "seeds"
    return Difference.model_validate(
        {
            "other": other.name,
            **measure.place(),
            "first_pct": float(ours_SN.mean()),
            "other_pct": float(theirs_SN.mean()),
            "difference_pct": images.value,
            "low_pct": images.low,
            "high_pct": images.high,
            "seeds": len(pairs) if pairs else None,
            **_of_seeds(seeds),
            "verdict": _verdict(low, high),
            "verdict_over": over,
        }
    )


def _adjusted(found: Sequence[tuple[bool, Difference]]) -> tuple[Difference, ...]:
    """The differences, p-values of those that count (True) adjusted for how many they are."""
    counted = [place for place, (counts, one) in enumerate(found) if counts and one.p is not None]
    differences = [one for _, one in found]
    p_holm_M = holm([differences[place].p or 0.0 for place in counted])
    for place, p_holm in zip(counted, p_holm_M.tolist(), strict=True):
        differences[place] = differences[place].model_copy(update={"p_holm": p_holm})
    return tuple(differences)


def _of_seeds(seeds: SeedDifference | None) -> dict[str, float | None]:
    if seeds is None:
        return {}
    return {
        "seeds_deviation_pct": seeds.deviation,
        "seeds_t_low_pct": seeds.t_low,
        "seeds_t_high_pct": seeds.t_high,
        "seeds_bootstrap_low_pct": seeds.bootstrap_low,
        "seeds_bootstrap_high_pct": seeds.bootstrap_high,
        "p": seeds.p,
    }


def _verdict(low: float, high: float) -> Verdict:
    if low <= 0 <= high:
        return "within noise"
    return "higher" if low > 0 else "lower"


def _level(side: _Side, measure: _Measure) -> Level:
    values_S = [float(measure.pct_N(run).mean()) for run in side.runs]
    return Level.model_validate(
        {
            **measure.place(),
            "mean_pct": sum(values_S) / len(values_S),
            "deviation_pct": stdev(values_S) if len(values_S) > 1 else None,
            "min_pct": min(values_S),
            "max_pct": max(values_S),
        }
    )
