"""What a run's log says about its training.

K exits, T loss terms, S log records, E evaluations, U updates of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.method.terms import Term
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.runs.metrics import read_metrics


@dataclass(frozen=True, eq=False)
class History:
    """A training run as metrics.jsonl tells it: records of its events."""

    started: Mapping[str, Any]  # the (last) beginning
    terms: tuple[Term, ...]  # what each weight belongs to
    steps: tuple[Mapping[str, Any], ...]
    evaluated: tuple[Mapping[str, Any], ...]  # on the val split
    updated: tuple[Mapping[str, Any], ...]  # the weights

    @property
    def num_exits(self) -> int:
        """K."""
        return int(self.started["num_exits"])

    @cached_property
    def step_S(self) -> NDArray[np.int64]:
        """Optimiser steps behind each record of training steps."""
        return np.array([record["step"] for record in self.steps])

    @cached_property
    def weights_ST(self) -> NDArray[np.float64]:
        """Loss weights then."""
        return np.array([record["weights_T"] for record in self.steps])

    @cached_property
    def val_step_E(self) -> NDArray[np.int64]:
        """Optimiser steps behind each evaluation."""
        return np.array([record["step"] for record in self.evaluated], np.int64)

    @cached_property
    def losses_SK(self) -> NDArray[np.float64]:
        """Cross-entropy with the labels on training images, mean over the stretch of a record."""
        place_K = [t for t, term in enumerate(self.terms) if term.kind == "supervision"]
        return np.array([record["terms_T"] for record in self.steps])[:, place_K]

    def evaluated_EK(self, name: str) -> NDArray[np.float64]:
        """One measurement of each exit at every evaluation."""
        values = [record[name] for record in self.evaluated]
        return np.array(values, np.float64).reshape(-1, self.num_exits)

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

    def seconds(self, batch_size: int) -> float:
        """Time that the steps and evaluations took which led to the network, resumed or not.

        A resume cuts the log back to its checkpoint, and with it how long the stretch took that
        was lost; the speed of every stretch is in its record.
        """
        count_S = np.diff(self.step_S, prepend=0)
        speed_S = np.array([record["images_per_s"] for record in self.steps])
        of_steps = float((count_S * batch_size / speed_S).sum())
        return of_steps + float(sum(record["seconds"] for record in self.evaluated))


def read_history(run: RunFolder) -> History | None:
    """The run's history; None if nothing was logged yet.

    Raises:
        RunError: a line of the log is damaged.
        KeyError, TypeError, ValueError: a record is of another version.
    """
    records: dict[str, list[dict[str, Any]]] = {}
    for record in read_metrics(run.metrics) if run.metrics.exists() else ():
        records.setdefault(record["event"], []).append(record)
    steps = records.get("step", [])
    if not steps or "run_started" not in records:
        return None
    started = records["run_started"][-1]
    terms = tuple(Term(**term) for term in started["terms"])
    evaluated, updated = records.get("evaluated", ()), records.get("weights_updated", ())
    history = History(started, terms, tuple(steps), tuple(evaluated), tuple(updated))
    if history.weights_ST.shape != (len(steps), len(terms)):
        raise ValueError(f"records of {len(terms)} loss terms hold other numbers of weights")
    return history
