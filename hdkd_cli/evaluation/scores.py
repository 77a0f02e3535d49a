"""Scores: the logits of every exit for every sample, and where they come from.

One pass over a split serves all evaluation, and all evaluation is a pure function of it. The file
is an exchange format: anything that writes one can use calibration and budgeted evaluation.
K exits, N samples, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.errors import ScoresError
from hdkd_cli.files import read_arrays, write_arrays

MAX_LOGIT = 1e30
"""float32 ends at 3e38: differences and quotients by a temperature must fit too."""
MAX_COST = 10**13
"""Summed over a million samples, int64 still holds it."""
_COSTS = ("macs", "macs_eager", "ops", "params")


@dataclass(frozen=True, eq=False)
class Scores:
    """Logits and labels of one split under one set of weights.

    Attributes:
        logits_KNC: float32 or float16.
        labels_N: int64.
        macs_K: Cumulative multiply-accumulates up to each exit.
        macs_eager_K: The same for a network that computes every scale of a block; None: unknown.
        ops_K: The count that MSDNet's repositories print as FLOPs; None: unknown.
        params_K: Cumulative parameters; None: unknown.
        meta: Text: ``checkpoint_sha256``, ``split``, ``split_sha256``, ``transform``,
            ``precision``, ``network``, ``dataset``, as far as known.

    Raises:
        ScoresError: shapes or types do not fit, labels are out of range, logits are not finite,
            costs do not grow.
    """

    logits_KNC: NDArray[np.float32] | NDArray[np.float16]
    labels_N: NDArray[np.int64]
    macs_K: tuple[int, ...]
    macs_eager_K: tuple[int, ...] | None = None
    ops_K: tuple[int, ...] | None = None
    params_K: tuple[int, ...] | None = None
    meta: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, given in (("logits", self.logits_KNC), ("labels", self.labels_N)):
            if not isinstance(given, np.ndarray):
                raise ScoresError(
                    f"{name} are a {type(given).__name__}, a numpy array is needed: "
                    "tensor.numpy(force=True) of a torch tensor"
                )
        _check_logits(self.logits_KNC)
        _check_labels(self.labels_N, self.num_samples, self.num_classes)
        for name in _COSTS:
            costs_K: tuple[int, ...] | None = getattr(self, f"{name}_K")
            if costs_K is not None:
                _check_costs(name, costs_K, self.num_exits)

    @property
    def num_exits(self) -> int:
        """K."""
        return int(self.logits_KNC.shape[0])

    @property
    def num_samples(self) -> int:
        """N."""
        return int(self.logits_KNC.shape[1])

    @property
    def num_classes(self) -> int:
        """C."""
        return int(self.logits_KNC.shape[2])


def _check_logits(logits_KNC: NDArray[Any]) -> None:
    if logits_KNC.dtype not in (np.float32, np.float16):
        raise ScoresError(f"logits are {logits_KNC.dtype}, float32 or float16 is needed")
    if logits_KNC.ndim != 3:
        raise ScoresError(
            f"logits have shape {logits_KNC.shape}, (exits, samples, classes) is needed"
        )
    num_exits, num_samples, num_classes = logits_KNC.shape
    if num_exits < 1 or num_samples < 1 or num_classes < 2:
        raise ScoresError(
            f"logits of {num_exits} exits, {num_samples} samples and {num_classes} classes: "
            "at least one exit, one sample and two classes are needed"
        )
    for number, logits_NC in enumerate(logits_KNC, 1):
        low, high = float(logits_NC.min()), float(logits_NC.max())  # NaN if there is one anywhere
        if not (math.isfinite(low) and math.isfinite(high)):
            bad = int((~np.isfinite(logits_NC)).sum())
            raise ScoresError(
                f"exit {number}: {bad} of {logits_NC.size} logits are NaN or infinite"
            )
        if (largest := max(-low, high)) > np.float32(MAX_LOGIT):
            raise ScoresError(
                f"exit {number}: logits reach {largest:.1e}; beyond {MAX_LOGIT:.0e} their "
                "differences overflow"
            )


def _check_labels(labels_N: NDArray[Any], num_samples: int, num_classes: int) -> None:
    if labels_N.dtype != np.int64 or labels_N.shape != (num_samples,):
        raise ScoresError(
            f"labels are {labels_N.dtype} of shape {labels_N.shape}, "
            f"int64 of shape ({num_samples},) is needed"
        )
    low, high = int(labels_N.min()), int(labels_N.max())
    if low < 0 or high >= num_classes:
        raise ScoresError(
            f"labels run from {low} to {high}, outside 0..{num_classes - 1} ({num_classes} classes)"
        )


def _check_costs(name: str, costs_K: tuple[int, ...], num_exits: int) -> None:
    if len(costs_K) != num_exits:
        raise ScoresError(f"{name} has {len(costs_K)} entries for {num_exits} exits")
    # Only the cost that decides must set exits apart: tied weights, say, add no parameters.
    least = 1 if name == "macs" else 0
    if costs_K[0] <= 0 or any(late - early < least for early, late in pairwise(costs_K)):
        raise ScoresError(f"{name} must be positive and grow from exit to exit: {list(costs_K)}")
    if costs_K[-1] > MAX_COST:
        raise ScoresError(f"{name} reaches {costs_K[-1]:,}: more than {MAX_COST:,} is no cost")


def write_scores(path: Path, scores: Scores) -> None:
    """Write ``scores`` as safetensors, atomically."""
    arrays: dict[str, NDArray[Any]] = {"logits": scores.logits_KNC, "labels": scores.labels_N}
    for name in _COSTS:
        costs_K: tuple[int, ...] | None = getattr(scores, f"{name}_K")
        if costs_K is not None:
            arrays[name] = np.array(costs_K, np.int64)
    write_arrays(path, arrays, scores.meta)


def read_scores(path: Path) -> Scores:
    """Read a score file. Tensors of other names are ignored.

    Raises:
        ScoresError: the file is missing, damaged or a pickle, or not what `Scores` needs.
    """
    arrays, meta = read_arrays(path, {"logits", "labels", *_COSTS}, ScoresError)
    missing = {"logits", "labels", "macs"} - arrays.keys()
    if missing:
        raise ScoresError(f"{path}: has no tensor named {', '.join(sorted(missing))}")
    costs: dict[str, tuple[int, ...]] = {}
    for name in arrays.keys() & set(_COSTS):
        costs_K = arrays[name]
        if costs_K.dtype != np.int64 or costs_K.ndim != 1:
            raise ScoresError(
                f"{path}: {name} is {costs_K.dtype} of shape {costs_K.shape}, "
                "int64 with one entry per exit is needed"
            )
        costs[f"{name}_K"] = tuple(costs_K.tolist())
    try:
        return Scores(arrays["logits"], arrays["labels"], meta=meta, **costs)
    except ScoresError as problem:
        raise ScoresError(f"{path}: {problem}") from None
