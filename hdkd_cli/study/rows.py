"""What a finished run contributes to a study: one row.

K exits, N samples, B budgets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hdkd_cli.choices import HeldOut
from hdkd_cli.errors import RunError
from hdkd_cli.evaluation.anytime import anytime
from hdkd_cli.evaluation.calibration import fit_combination, fit_policy
from hdkd_cli.evaluation.scores import Scores, read_scores
from hdkd_cli.evaluation.simulate import budget
from hdkd_cli.records.study import StudyRow
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.runs.metrics import read_metrics
from hdkd_cli.settings.keys import leaves
from hdkd_cli.settings.schema import Settings
from hdkd_cli.study.plan import Cell

COMBINATIONS = ("single", "mean")
"""How exits speak at a budget: each for itself, or with the mean of the exits so far."""


def row_of(runs: Path, cell: Cell, split: HeldOut, budgets: Sequence[float]) -> StudyRow:
    """The row of a finished run, from the scores that it keeps.

    Args:
        runs: Folder of the study's runs.
        cell: Which run.
        split: Images that accuracies are measured on.
        budgets: Fractions of the full network's MACs.

    Raises:
        RunError, ScoresError: a file is missing or damaged.
    """
    run = RunFolder.open(runs / cell.name)
    info, settings = run.info(), run.settings()
    if info.device is None:
        raise RunError(f"{run.path}: was not trained here (run.json names no device)")
    scores, val = (
        read_scores(run.path / "scores" / f"{name}.safetensors") for name in (split, "val")
    )
    exits = anytime(
        scores,
        *fit_combination(scores, "single", temperature=False),
        ece_bins=settings.evaluation.ece_bins,
        run=None,
    ).exits
    top1_K = tuple(entry.top1_pct for entry in exits)
    single, combined = (
        _within_budgets(scores, val, combination, budgets) for combination in COMBINATIONS
    )
    return StudyRow(
        setting=cell.setting,
        method=cell.method,
        seed=cell.seed,
        epochs=settings.training.epochs,
        split=split,
        samples=scores.num_samples,
        top1_pct=top1_K,
        mean_top1_pct=float(np.mean(top1_K)),
        nll=tuple(entry.nll for entry in exits),
        budgets=tuple(budgets),
        single_top1_pct=single,
        combined_top1_pct=combined,
        seconds=training_seconds(run),
        precision=settings.training.precision,
        channels_last=settings.training.channels_last,
        revision=info.git_revision,
        device=info.device,
        settings_sha256=settings_sha256(settings),
    )


def settings_sha256(settings: Settings) -> str:
    """Equal for two runs that do the same."""
    values = leaves(settings)
    for key in ("training.device", "data.root", "weights.replay"):
        values.pop(key)
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def training_seconds(run: RunFolder) -> float:
    """Seconds that steps and continuations of a run took in all, however often it was resumed."""
    seconds, before, batch = 0.0, 0, run.settings().training.batch_size
    for event in read_metrics(run.metrics):
        if event["event"] == "step":
            seconds += (event["step"] - before) * batch / event["images_per_s"]
            before = event["step"]
        elif event["event"] == "tradeoffs":
            seconds += event["seconds"]
    return seconds


def _within_budgets(
    scores: Scores, val: Scores, combination: Any, budgets: Sequence[float]
) -> tuple[float | None, ...]:
    """Accuracy under the geometric policy solved on ``val`` for each budget; None for one below
    the cost of the first exit."""
    wanted = [fraction * scores.macs_K[-1] for fraction in budgets]
    affordable = [macs for macs in wanted if macs >= scores.macs_K[0]]
    if not affordable:
        return (None,) * len(wanted)
    policy = fit_policy(
        "geometric",
        val,
        combination=combination,
        confidence="max-prob",
        temperature=False,
        budgets_macs=affordable,
    )
    points = budget(policy, scores, run=None).points
    found = dict(zip(affordable, (point.top1_pct for point in points), strict=True))
    return tuple(found.get(macs) for macs in wanted)
