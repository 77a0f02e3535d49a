"""What a run tells the world: frozen records the loop hands to sinks.

A sink is any callable that takes an event: the metrics log, the live view, TensorBoard, a list's
``append`` in tests. The loop itself never prints and never writes anything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from hdkd_cli.method.terms import Term


@dataclass(frozen=True)
class Event:
    """Base of all events; ``kind`` names it in metrics.jsonl."""

    kind: ClassVar[str]

    def record(self) -> dict[str, Any]:
        """JSON-ready form, ``event`` first."""
        return {"event": self.kind, **asdict(self)}


@dataclass(frozen=True)
class RunStarted(Event):
    """Training is about to begin, or to go on.

    Attributes:
        run: Path of the run folder.
        first_step: Optimiser steps already done (0 for a new run).
        total_steps: Steps at which this run ends.
        steps_per_epoch: Steps of one pass over the training split.
        epochs: Length of the schedule.
        samples: Images of each split.
        num_exits: K.
        parameters: Trainable parameters of the network.
        macs_K: Cumulative multiply-accumulates of leaving at each exit.
        terms: What the loss terms are.
        weight_updates: Updates of the weights from the first step to the last; 0: fixed weights.
        device: Where it runs, for people.
        notes: What was adapted, for people.
    """

    kind = "run_started"

    run: str
    first_step: int
    total_steps: int
    steps_per_epoch: int
    epochs: int
    samples: dict[str, int]
    num_exits: int
    parameters: int
    macs_K: tuple[int, ...]
    terms: tuple[Term, ...]
    device: str
    weight_updates: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Noted(Event):
    """Something worth knowing, for people."""

    kind = "note"

    text: str


@dataclass(frozen=True)
class StepLogged(Event):
    """A stretch of training steps.

    Attributes:
        step: Optimiser steps done.
        epoch: Passes begun, from 1.
        lr: Learning rate of the last step.
        loss: Weighted training loss, mean over the stretch.
        terms_T: Unweighted loss terms, means over the stretch.
        weights_T: Current weight of each term.
        train_top1_pct_K: Accuracy of each exit on the augmented images of the stretch.
        images_per_s: Training images per second over the stretch, evaluation not counted.
        skipped_steps: Updates left out so far because fp16 gradients overflowed.
        weight_updates_left_out: Updates of the weights that were due so far and were not applied.
    """

    kind = "step"

    step: int
    epoch: int
    lr: float
    loss: float
    terms_T: tuple[float, ...]
    weights_T: tuple[float, ...]
    train_top1_pct_K: tuple[float, ...]
    images_per_s: float
    skipped_steps: int
    weight_updates_left_out: int = 0


@dataclass(frozen=True)
class WeightsUpdated(Event):
    """An update of the weights, and what it was made of. Told with the next ``StepLogged`` or
    checkpoint, so that training never waits for it.

    Attributes:
        step: Optimiser steps done.
        applied: False: the derivative was not finite or the step was skipped; nothing changed.
        val_loss: The validation objective L_val, at the parameters after the step.
        val_ce_K: Validation cross-entropy of each exit there.
        hypergradient_T: (1/η)·∂L_val/∂γ_t: below 0 where more of a term would have helped.
    """

    kind = "weights_updated"

    step: int
    applied: bool
    val_loss: float
    val_ce_K: tuple[float, ...]
    hypergradient_T: tuple[float, ...]

    def record(self) -> dict[str, Any]:
        """JSON-ready form: numbers that are not finite become None."""
        record = super().record()
        for name in ("val_ce_K", "hypergradient_T"):
            record[name] = [x if math.isfinite(x) else None for x in record[name]]
        return record | {"val_loss": self.val_loss if math.isfinite(self.val_loss) else None}


@dataclass(frozen=True)
class TradeoffsMoved(Event):
    """A round of continuations was held: the shared parameters of the weights moved.

    Attributes:
        step: Optimiser steps done.
        names: What each parameter trades off.
        phi_M: Their values now.
        here: Validation objective after a continuation with the values that they had.
        up_M: The same with each of them moved up.
        down_M: The same with it moved down; null where training diverged.
        seconds: Time the round took.
    """

    kind = "tradeoffs"

    step: int
    names: tuple[str, ...]
    phi_M: tuple[float, ...]
    here: float | None
    up_M: tuple[float | None, ...]
    down_M: tuple[float | None, ...]
    seconds: float


@dataclass(frozen=True)
class Evaluated(Event):
    """Accuracy of each exit on a held-out split, during training.

    Attributes:
        step: Optimiser steps done.
        epoch: Passes begun, from 1.
        split: Always "val"; the test split is never seen in training.
        top1_pct_K: Accuracy of each exit.
        nll_K: Mean negative log-likelihood of each exit, nats.
        seconds: Time the measurement took.
    """

    kind = "evaluated"

    step: int
    epoch: int
    split: str
    top1_pct_K: tuple[float, ...]
    nll_K: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class CheckpointSaved(Event):
    """A checkpoint is complete on disk."""

    kind = "checkpoint"

    step: int
    path: str


@dataclass(frozen=True)
class RunEnded(Event):
    """The run is over: ``status`` is finished, paused or interrupted."""

    kind = "run_ended"

    step: int
    status: str
    seconds: float


Sink = Callable[[Event], None]
