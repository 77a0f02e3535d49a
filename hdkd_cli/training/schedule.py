"""Learning rate as a function of the step: a formula, no state to save."""

from __future__ import annotations

import math

from hdkd_cli.settings.schema import OptimizerSettings, ScheduleSettings


def learning_rate(
    step: int, schedule_steps: int, optimizer: OptimizerSettings, schedule: ScheduleSettings
) -> float:
    """Learning rate of the step with index ``step`` (0-based).

    Milestones and warm-up are fractions of ``schedule_steps``, so a shorter run keeps the shape
    of the schedule. Warm-up rises linearly and reaches the full rate with its last step (Goyal et
    al., 2017); the cosine (Loshchilov & Hutter, 2017) spans what follows it and ends at zero.
    """
    warmup_steps = round(schedule.warmup * schedule_steps)
    if step < warmup_steps:
        return optimizer.lr * (step + 1) / warmup_steps
    if schedule.kind == "cosine":
        progress = (step - warmup_steps) / max(1, schedule_steps - warmup_steps)
        return optimizer.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    drops = sum(step >= round(m * schedule_steps) for m in schedule.milestones)
    return float(optimizer.lr * schedule.factor**drops)
