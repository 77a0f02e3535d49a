"""How sure an exit is: which measures there are, those from outside among them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.errors import PolicyError
from hdkd_cli.evaluation.measures import MEASURES, Measure
from hdkd_cli.evaluation.names import CONFIDENCE_NAMES

_confidences: dict[str, Measure] = dict(MEASURES)
CONFIDENCES: Mapping[str, Measure] = MappingProxyType(_confidences)
"""Name → measure."""


def register_confidence(name: str, measure: Measure) -> None:
    """Make a confidence of one's own known: to calibration, evaluation and early exit.

    An export cannot carry it along.

    Args:
        name: What policies call it: small letters, digits and hyphens.
        measure: From numpy arrays to numpy arrays: combined logits (B, C), float32, at least two
            classes → (B,) in [0, 1]. NaN must stay NaN: a network whose logits are NaN is told by
            that.

    Raises:
        ValueError: the name is taken, or is none.
    """
    CONFIDENCE_NAMES.add(name)
    _confidences[name] = measure


def confidence(logits_BC: NDArray[Any], kind: str) -> NDArray[np.float32]:
    """Confidence in [0, 1] of each sample, (B,) float32.

    Args:
        logits_BC: Combined logits, at least two classes.
        kind: Which, one of ``CONFIDENCES``.

    Raises:
        PolicyError: there is no such kind.
    """
    measure = CONFIDENCES.get(kind)
    if measure is None:
        raise PolicyError(
            f"confidence {kind!r}: no such kind", hint=f"there are {', '.join(CONFIDENCES)}"
        )
    return measure(logits_BC.astype(np.float32, copy=False)).astype(np.float32, copy=False)
