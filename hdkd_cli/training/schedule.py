"""Learning rates as functions of the step and the run's length: formulas, no state to save."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hdkd_cli.settings.schema import OptimizerSettings, ScheduleSettings, TrainingSettings


@dataclass(frozen=True)
class Schedule:
    """How long a run is, in optimiser steps.

    Attributes:
        per_epoch: Steps of one pass over the training split.
        total: What learning rates span: all epochs.
        end: Where the run stops: there, or earlier.
    """

    per_epoch: int
    total: int
    end: int

    @classmethod
    def of(cls, training: TrainingSettings, images: int) -> Schedule:
        """That of a training split of so many ``images``."""
        per_epoch = images // training.batch_size
        total = training.epochs * per_epoch
        return cls(per_epoch, total, min(total, training.max_steps or total))


def weights_learning_rate(updates: int) -> float:
    """Adam's learning rate of the loss weights, unless given, in a run of so many ``updates``.

    An update moves a raw weight by at most about this much. 0.01, but at most 2.5 over the whole
    run [ours]: weights that move faster than the network learns follow the next step's gain instead
    of the run's (docs/log.md has the evidence).
    """
    return min(0.01, 2.5 / max(1, updates))


def round_steps(total_steps: int, rounds: int) -> tuple[int, ...]:
    """The steps before which a round is held: spread evenly over the first 2/5 of the schedule.

    Later, at low rates, weights hardly matter (docs/log.md).
    """
    return tuple(round(0.4 * total_steps * (place + 0.5) / rounds) for place in range(rounds))


def learning_rate(
    step: int, total_steps: int, optimizer: OptimizerSettings, schedule: ScheduleSettings
) -> float:
    """Learning rate of the step with index ``step`` (0-based).

    Milestones and warm-up are fractions of ``total_steps``, so a shorter run keeps the shape
    of the schedule. Warm-up rises linearly and reaches the full rate with its last step (Goyal et
    al., 2017); the cosine (Loshchilov & Hutter, 2017) spans what follows it and ends at zero.
    """
    warmup_steps = round(schedule.warmup * total_steps)
    if step < warmup_steps:
        return optimizer.lr * (step + 1) / warmup_steps
    if schedule.kind == "cosine":
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return optimizer.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    drops = sum(step >= round(m * total_steps) for m in schedule.milestones)
    return float(optimizer.lr * schedule.factor**drops)
