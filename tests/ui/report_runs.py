"""Run folders as training leaves them, written by hand: K exits, N samples, C classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hdkd_cli.evaluation.calibration import fit_policy
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.method.terms import Terms
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.settings.schema import Settings
from hdkd_cli.ui.report.read import RunContent, read_runs

CHECKPOINT = "c" * 64


def make_scores(split: str, *, exits: int = 3, gain: float = 1.0, seed: int = 0) -> Scores:
    """Scores of exits that get better; the samples of a split are the same whatever the seed."""
    samples, classes = 300, 5
    labels_N = np.arange(samples) % classes
    random = np.random.default_rng(1000 * (split == "val") + seed)
    logits_KNC = random.standard_normal((exits, samples, classes))
    logits_KNC += gain * np.arange(1, exits + 1)[:, None, None] * np.eye(classes)[labels_N]
    return Scores(
        logits_KNC.astype(np.float32),
        labels_N,
        macs_K=tuple(1_000_000 * (k + 1) for k in range(exits)),
        params_K=tuple(10_000 * (k + 1) for k in range(exits)),
        meta={
            "checkpoint_sha256": CHECKPOINT, "split": split, "split_sha256": f"of {split}",
            "transform": "none",
        },
    )  # fmt: skip


def make_run(
    folder: Path,
    *,
    records: int = 8,
    policy: bool = True,
    status: str = "finished",
    gain: float = 1.0,
    seed: int = 0,
    sections: dict[str, Any] | None = None,
    **info: Any,
) -> RunFolder:
    """A run on digits with 3 exits; ``info`` goes into run.json."""
    training = {"seed": seed, **(sections or {}).get("training", {})}
    settings = Settings.model_validate(
        {"model": {"exits": 3}, **(sections or {}), "training": training}
    )
    run = RunFolder.create(folder.parent, "digits", settings, name=folder.name)
    run.update_info(status=status, **info)
    terms = Terms(3, settings.objective.teachers, 3.0)
    events: list[dict[str, Any]] = [
        {
            "event": "run_started", "total_steps": 20 * records,
            "terms": [asdict(term) for term in terms.terms],
            "num_exits": 3, "parameters": 30_000, "samples": {"train": 1250, "test": 300},
        }
    ]  # fmt: skip
    for record in range(1, records + 1):
        weights = [1 + 0.01 * record * t for t in range(len(terms.names))]
        losses = [2.0 / record + 0.1 * t for t in range(len(terms.names))]
        step = {"step": 20 * record, "weights_T": weights, "terms_T": losses, "images_per_s": 64.0}
        events.append({"event": "step", **step})
    if records:
        val = {"top1_pct_K": [50.0, 60.0, 70.5], "nll_K": [1.5, 1.2, 0.9], "seconds": 1.0}
        events.append({"event": "evaluated", "step": 20 * records, **val})
        run.metrics.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    if policy:
        fitted = fit_policy(
        "geometric",
            make_scores("val", gain=gain, seed=seed),
            combination="single", confidence="max-prob", temperature=False, budgets_macs=[],
        )  # fmt: skip
        run.keep_policy("geometric", fitted.as_record())
    return run


def contents_of(*runs: RunFolder, gains: Sequence[float] = ()) -> list[RunContent]:
    """What a report reads from such runs; ``gains`` are those that they were made with."""
    gain = dict(zip((run.path for run in runs), gains, strict=False))

    def scores(run: RunFolder) -> Scores:
        seed = run.settings().training.seed
        return make_scores("test", gain=gain.get(run.path, 1.0), seed=seed)

    return read_runs(runs, scores)


def content_of(run: RunFolder) -> RunContent:
    """The same of one run."""
    (content,) = contents_of(run)
    return content
