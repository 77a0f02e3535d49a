"""Score tables for the tests of this folder. K exits, N samples, C classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.table import ExitTable

FINGERPRINTS = {
    "checkpoint_sha256": "a" * 64,
    "split": "val",
    "split_sha256": "b" * 64,
    "transform": "resize(32)",
}


def make_scores(
    exits: int = 3, samples: int = 60, classes: int = 7, *, seed: int = 0, **changes: Any
) -> Scores:
    """Scores of exits that get better; `changes` replaces fields."""
    random = np.random.default_rng(seed)
    labels_N = random.integers(0, classes, samples)
    logits_KNC = 2 * random.standard_normal((exits, samples, classes))
    logits_KNC += np.arange(1, exits + 1)[:, None, None] * np.eye(classes)[labels_N]
    fields: dict[str, Any] = {
        "logits_KNC": logits_KNC.astype(np.float32),
        "labels_N": labels_N,
        "macs_K": tuple(1000 * (k + 1) for k in range(exits)),
        "macs_eager_K": tuple(1500 * (k + 1) for k in range(exits)),
        "ops_K": tuple(1010 * (k + 1) for k in range(exits)),
        "params_K": tuple(10 * (k + 1) for k in range(exits)),
        "meta": FINGERPRINTS,
    }
    return Scores(**{**fields, **changes})


@st.composite
def exit_tables(draw: st.DrawFn, max_exits: int = 5, max_samples: int = 25) -> ExitTable:
    """Small tables; confidences often tie."""
    num_exits = draw(st.integers(1, max_exits))
    num_samples = draw(st.integers(1, max_samples))
    levels = draw(st.sampled_from([2, 4, 10, 10_000]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (num_exits, num_samples)
    return ExitTable(
        confidence_KN=(random.integers(0, levels + 1, shape) / levels).astype(np.float32),
        prediction_KN=random.integers(0, 3, shape),
        labels_N=random.integers(0, 3, num_samples),
        macs_K=tuple(int(x) for x in random.integers(1, 100, num_exits).cumsum()),
    )
