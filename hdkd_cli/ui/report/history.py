"""What a run's log says about its training: loss weights and validation accuracy over time.

K exits, T terms, S log records, E evaluations, U updates of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.method.terms import Term
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.runs.metrics import read_metrics


@dataclass(frozen=True, eq=False)
class History:
    """A training run as metrics.jsonl tells it.

    Attributes:
        started: The record of its (last) beginning.
        terms: What each weight belongs to.
        step_S: Optimiser steps behind each record.
        weights_ST: Loss weights then.
        val_step_E: Optimiser steps behind each evaluation.
        val_top1_pct_EK: Accuracy of each exit on the val split then.
        update_step_U: Optimiser steps behind each update of the weights.
        objective_U: The validation objective then; NaN where it was not finite.
        hypergradient_UT: Its derivative by each weight then, likewise.
        left_out: Updates that were not applied.
        seconds: Training time, as far as it was recorded; None: not at all.
    """

    started: dict[str, Any]
    terms: tuple[Term, ...]
    step_S: NDArray[np.int64]
    weights_ST: NDArray[np.float64]
    val_step_E: NDArray[np.int64]
    val_top1_pct_EK: NDArray[np.float64]
    update_step_U: NDArray[np.int64]
    objective_U: NDArray[np.float64]
    hypergradient_UT: NDArray[np.float64]
    left_out: int
    seconds: float | None

    @property
    def num_exits(self) -> int:
        """K."""
        return int(self.started["num_exits"])

    def matrix(self, record: int) -> NDArray[np.float64]:
        """Weights (K, K) of one record: [student, teacher], supervision on the diagonal, else NaN.

        Args:
            record: Which of S; negative numbers count from the end.
        """
        weights_KK = np.full((self.num_exits, self.num_exits), np.nan)
        for term, weight in zip(self.terms, self.weights_ST[record], strict=True):
            if term.kind in ("supervision", "distillation") and term.student is not None:
                weights_KK[term.student - 1, (term.teacher or term.student) - 1] = weight
        return weights_KK


def read_history(run: RunFolder) -> History | None:
    """The run's history; None if nothing was logged yet.

    Raises:
        ValueError, KeyError, TypeError: a line of the log is damaged, or of another version.
    """
    if not run.metrics.exists():
        return None
    records: dict[str, list[dict[str, Any]]] = {}
    for record in read_metrics(run.metrics):
        records.setdefault(record["event"], []).append(record)
    steps, evaluated = records.get("step", []), records.get("evaluated", [])
    if not steps or "run_started" not in records:
        return None
    started = records["run_started"][-1]
    updated = records.get("weights_updated", [])
    ended = records.get("run_ended", [])
    return History(
        started=started,
        terms=tuple(Term(**term) for term in started["terms"]),
        step_S=np.array([r["step"] for r in steps]),
        weights_ST=np.array([r["weights_T"] for r in steps]),
        val_step_E=np.array([r["step"] for r in evaluated], np.int64),
        val_top1_pct_EK=np.array([r["top1_pct_K"] for r in evaluated]).reshape(
            -1, started["num_exits"]
        ),
        update_step_U=np.array([r["step"] for r in updated], np.int64),
        objective_U=np.array([r["val_loss"] for r in updated], np.float64),  # None becomes NaN
        hypergradient_UT=np.array([r["hypergradient_T"] for r in updated], np.float64).reshape(
            -1, len(started["terms"])
        ),
        left_out=sum(not r["applied"] for r in updated),
        seconds=sum(r["seconds"] for r in ended) if ended else None,
    )
