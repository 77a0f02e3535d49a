"""What a study says: differences by seed, and how alike the weights of different seeds are.

K exits, T terms, S seeds, R records of a run's log.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.evaluation.paired import SeedDifference, holm, over_seeds, over_settings
from hdkd_cli.records.study import Contrast, Overall, StudyRow, WeightsAlike
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.runs.metrics import read_metrics
from hdkd_cli.study.plan import Plan

C = TypeVar("C", Contrast, Overall)

MEAN = "mean"


def contrasts(plan: Plan, rows: Iterable[StudyRow]) -> list[Contrast]:
    """Every method against every reference, in every setting and quantity."""
    by_cell = {(row.setting, row.method, row.seed): row for row in rows}
    found: list[Contrast] = []
    for setting, reference in itertools.product(plan.settings, plan.study.references):
        compared = [m for m in plan.methods if m != reference]
        block = [
            contrast
            for method in compared
            for contrast in _against(by_cell, setting, reference, method, plan.study.seeds)
        ]
        for quantity in dict.fromkeys(contrast.quantity for contrast in block):
            found += _adjusted([c for c in block if c.quantity == quantity])
    return found


def overall(plan: Plan, contrasts: Iterable[Contrast]) -> list[Overall]:
    """What all settings say together of methods that have at least two seeds in each.

    Empty for a plan with one setting.
    """
    cells: dict[tuple[str, str, str], list[Contrast]] = {}
    for contrast in contrasts:
        if contrast.seeds > 1:
            names = (contrast.reference, contrast.quantity, contrast.method)
            cells.setdefault(names, []).append(contrast)
    families: dict[tuple[str, str], list[Overall]] = {}
    for (reference, quantity, method), parts in cells.items():
        if len(parts) == len(plan.settings) > 1:
            together = over_settings([part.per_seed for part in parts])
            families.setdefault((reference, quantity), []).append(
                Overall(
                    reference=reference,
                    method=method,
                    quantity=quantity,
                    settings=len(parts),
                    seeds=sum(part.seeds for part in parts),
                    value=together.value,
                    t_low=together.t_low,
                    t_high=together.t_high,
                    p=together.p,
                )
            )
    return [entry for family in families.values() for entry in _adjusted(family)]


def _adjusted(family: list[C]) -> list[C]:
    """The methods' contrasts in one quantity, with p-values that hold for all of them together."""
    p = [contrast.p for contrast in family if contrast.p is not None]
    adjusted = iter(holm(p).tolist())
    return [
        contrast if contrast.p is None else contrast.model_copy(update={"p_holm": next(adjusted)})
        for contrast in family
    ]


def _against(
    by_cell: Mapping[tuple[str, str, int], StudyRow],
    setting: str,
    reference: str,
    method: str,
    seeds: Sequence[int],
) -> Iterator[Contrast]:
    pairs = [
        (by_cell[setting, reference, seed], by_cell[setting, method, seed])
        for seed in seeds
        if (setting, reference, seed) in by_cell and (setting, method, seed) in by_cell
    ]
    if not pairs:
        return
    first, other = (
        [quantities(pair[side]) for pair in pairs] for side in (0, 1)
    )  # one mapping per seed
    for quantity in first[0]:
        if any(quantity not in numbers for numbers in other):
            continue  # a network with fewer exits
        left_S = [numbers[quantity] for numbers in first]
        right_S = [numbers[quantity] for numbers in other]
        names = {"setting": setting, "reference": reference, "method": method, "quantity": quantity}
        yield _contrast(names, left_S, right_S)


def _contrast(names: Mapping[str, str], left_S: list[float], right_S: list[float]) -> Contrast:
    """The difference by seed, right minus left; ``names`` says of what."""
    if len(left_S) == 1:
        value = right_S[0] - left_S[0]
        return Contrast.model_validate({**names, "seeds": 1, "value": value, "per_seed": (value,)})
    over: SeedDifference = over_seeds(left_S, right_S)
    return Contrast(
        setting=names["setting"],
        reference=names["reference"],
        method=names["method"],
        quantity=names["quantity"],
        seeds=len(left_S),
        value=over.value,
        per_seed=over.per_seed,
        t_low=over.t_low,
        t_high=over.t_high,
        bootstrap_low=over.bootstrap_low,
        bootstrap_high=over.bootstrap_high,
        p=over.p,
    )


def quantities(row: StudyRow) -> dict[str, float]:
    """What is compared of a row, by name."""
    return {
        MEAN: row.mean_top1_pct,
        **{f"exit {k}": top1 for k, top1 in enumerate(row.top1_pct, start=1)},
        **{
            f"combined {budget:g}": top1
            for budget, top1 in zip(row.budgets, row.combined_top1_pct, strict=True)
            if top1 is not None
        },
    }


def enough_seeds(plan: Plan, rows: Sequence[StudyRow]) -> bool:
    """Whether the plan's stopping rule is met. It reads widths alone, no sign."""
    stop = plan.study.stop
    if stop is None:
        return False
    means = [c for c in contrasts(plan, rows) if c.quantity == MEAN]
    expected = sum(m != r for m in plan.methods for r in plan.study.references) * len(plan.settings)
    return len(means) == expected and all(
        c.seeds >= stop.min_seeds
        and c.t_low is not None
        and c.t_high is not None
        and (c.t_high - c.t_low) / 2 <= stop.half_width_pct
        for c in means
    )


def learned_weights(run: RunFolder) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """The weights of a run over time: steps (R,), weights (R, T), and the kind of each term (T)."""
    steps, weights, kinds = [], [], list[str]()
    for event in read_metrics(run.metrics):
        if event["event"] == "run_started":
            kinds = [term["kind"] for term in event["terms"]]
        elif event["event"] == "step":
            steps.append(event["step"])
            weights.append(event["weights_T"])
    return np.array(steps, np.float64), np.array(weights, np.float64), kinds


def weights_alike(plan: Plan, rows: Iterable[StudyRow], runs: Path) -> list[WeightsAlike]:
    """Agreement of seeds on the trade-off, for every method whose weights moved."""
    moved: dict[tuple[str, str], list[tuple[NDArray[np.float64], list[str]]]] = {}
    for row in rows:
        folder = runs / f"{row.setting}-{row.method}-s{row.seed}"
        if plan.methods[row.method].replay is not None or not folder.is_dir():
            continue
        _, weights_RT, kinds = learned_weights(RunFolder.open(folder))
        moved_RT = np.log(weights_RT / weights_RT[0])
        if np.abs(moved_RT).max() > 0:
            moved.setdefault((row.setting, row.method), []).append((moved_RT, kinds))
    return [
        WeightsAlike(
            setting=setting,
            method=method,
            pairs=len(seeds) * (len(seeds) - 1) // 2,
            correlation=_correlation([_deviations(m_RT, kinds) for m_RT, kinds in seeds]),
            correlation_all=_correlation([_deviations(m_RT, [""] * len(k)) for m_RT, k in seeds]),
            common_pct=100 * float(np.mean([_common_share(m_RT, kinds) for m_RT, kinds in seeds])),
        )
        for (setting, method), seeds in moved.items()
        if len(seeds) > 1
    ]


def _deviations(moved_RT: NDArray[np.float64], kinds: Sequence[str]) -> NDArray[np.float64]:
    """What is left without the common factor of each kind, (R, T)."""
    rest_RT = moved_RT.copy()
    for kind in set(kinds):
        members = [t for t, name in enumerate(kinds) if name == kind]
        rest_RT[:, members] -= moved_RT[:, members].mean(axis=1, keepdims=True)
    return rest_RT


def _common_share(moved_RT: NDArray[np.float64], kinds: Sequence[str]) -> float:
    """Share of the squared movement that is the kinds' common factors."""
    return 1 - float((_deviations(moved_RT, kinds) ** 2).sum() / (moved_RT**2).sum())


def _correlation(seeds: Sequence[NDArray[np.float64]]) -> float | None:
    """Mean correlation over pairs of seeds of the deviations, averaged over time; None: no term
    deviates."""
    profiles = [deviation_RT.mean(axis=0) for deviation_RT in seeds]
    if any(np.ptp(profile_T) < 1e-9 for profile_T in profiles):
        return None
    pairs = itertools.combinations(profiles, 2)
    return float(np.mean([np.corrcoef(one_T, other_T)[0, 1] for one_T, other_T in pairs]))
