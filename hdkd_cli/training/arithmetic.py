"""What ``training.precision = "auto"`` and an absent ``training.channels_last`` come to.

On a CPU, what is fastest depends on the processor, the network and the batch, so a run that is
long enough tries: steps of every arithmetic in turn, for seconds. The outcome is kept in the user's
cache folder, so runs alike on one machine train alike, and is written into the run's settings. The
trial trains states of its own: the run's first state is as if there had been none.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import ValidationError

from hdkd_cli.choices import Precision
from hdkd_cli.data import Batch, ImageData
from hdkd_cli.devices import has_bf16_units, keep_freed_memory, processor
from hdkd_cli.files import sha256_bytes, user_cache, write_json
from hdkd_cli.inference.timing import in_turn
from hdkd_cli.models.cost import measure_costs
from hdkd_cli.models.fused import available
from hdkd_cli.records.training import ArithmeticTrial
from hdkd_cli.settings.schema import Settings
from hdkd_cli.training.building import build_state
from hdkd_cli.training.state import TrainState
from hdkd_cli.training.step import new_totals, train_step

LEAST_MACS = 1e13
"""Multiply-accumulates of a run below which nothing is tried: minutes of one core. [ours]"""
LEAST_STEPS = 500
"""Optimiser steps of a run below which nothing is tried: a trial takes about 20. [ours]"""
WORTH = 1.1
"""An arithmetic has to be so many times as fast as a simpler one to be taken. [ours]"""
SECONDS = 15.0
"""No round of the trial begins that would end later, but for the first three. [ours]"""
ROUNDS = 5

PRECISION, LAYOUT = "training.precision", "training.channels_last"


class Arithmetic(NamedTuple):
    """A precision and a memory order."""

    precision: Precision
    channels_last: bool

    def __str__(self) -> str:
        """For people and for the cache."""
        return f"{self.precision} {'NHWC' if self.channels_last else 'NCHW'}"

    def put_into(self, settings: Settings) -> Settings:
        """``settings`` with it in the place of what they leave open."""
        training = settings.training
        precision = self.precision if training.precision == "auto" else training.precision
        open_layout = training.channels_last is None
        changed = training.model_copy(
            update={
                "precision": precision,
                "channels_last": self.channels_last if open_layout else training.channels_last,
            }
        )
        return settings.model_copy(update={"training": changed})


@dataclass(frozen=True)
class Decision:
    """What was decided.

    Attributes:
        settings: Nothing is open in them any more, but for a memory order that the device decides.
        origin: Key → why it has its value, for what was open.
        notes: What to tell.
    """

    settings: Settings
    origin: Mapping[str, str]
    notes: tuple[str, ...] = ()


def decide(settings: Settings, data: ImageData, state: TrainState) -> Decision:
    """Close what the settings leave open.

    Without a trial ``auto`` is fp32 and the memory order is the device's own: off the CPU, on
    several ranks, under ``training.compile``, and in a run whose whole schedule is short.

    Args:
        settings: The run's.
        data: Its images.
        state: What was built from both, read only.
    """
    training = settings.training
    open_keys = [
        *([PRECISION] if training.precision == "auto" else []),
        *([LAYOUT] if training.channels_last is None else []),
    ]
    if not open_keys:
        return Decision(settings, {})
    arms = possible(settings)
    untried = _why_untried(settings, state, arms)
    if untried is not None:
        if training.precision != "auto":
            return Decision(settings, {})
        fixed = training.model_copy(update={"precision": "fp32"})
        return Decision(
            settings.model_copy(update={"training": fixed}), {PRECISION: f"auto ({untried})"}
        )
    trial, kept = _kept_or_tried(settings, data, state, arms)
    taken = next(arm for arm in arms if str(arm) == trial.taken)
    said = f"auto ({'an earlier' if kept else 'a'} trial of training steps on this machine)"
    return Decision(
        taken.put_into(settings), dict.fromkeys(open_keys, said), (_in_words(trial, kept),)
    )


def possible(settings: Settings) -> list[Arithmetic]:
    """What the settings leave open and this processor has units for, the simplest first."""
    training = settings.training
    precisions: list[Precision] = ["fp32", "bf16"] if has_bf16_units() else ["fp32"]
    if training.precision != "auto":
        precisions = [training.precision]
    layouts = [False, True] if training.channels_last is None else [training.channels_last]
    return [Arithmetic(precision, layout) for precision in precisions for layout in layouts]


def choose(seconds: Mapping[str, np.ndarray]) -> str:
    """The fastest arm of a trial, an earlier one unless a later one is worth it.

    Args:
        seconds: Of each round (R,), by arm, the simplest first.
    """
    best = next(iter(seconds))
    for arm, taken in seconds.items():
        if np.median(seconds[best] / taken) >= WORTH:
            best = arm
    return best


def _why_untried(settings: Settings, state: TrainState, arms: list[Arithmetic]) -> str | None:
    """The reason, if nothing is to be tried."""
    if state.device.type != "cpu":
        return f"on {state.device.type}"
    if state.ranks.size > 1:
        return "several processes"
    if settings.training.compile:
        return "compiled"
    if len(arms) == 1:
        return "this processor"
    if state.schedule.total < LEAST_STEPS:
        return "few steps"
    forward = measure_costs(state.net).macs_K[-1]
    # of a backward pass, each of the two products costs what the forward one does
    macs = 3 * forward * state.schedule.total * settings.training.batch_size
    return "a short run" if macs < LEAST_MACS else None


def _kept_or_tried(
    settings: Settings, data: ImageData, state: TrainState, arms: list[Arithmetic]
) -> tuple[ArithmeticTrial, bool]:
    """The trial that was kept, or one that is made now and kept if that is possible."""
    size = settings.training.batch_size // settings.training.accumulate
    facts = {
        "processor": processor(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "operator": str(available()),
        "network": state.net.architecture(),
        "images": str(size),
        "arms": ", ".join(map(str, arms)),
    }
    key = sha256_bytes(repr(sorted(facts.items())).encode())[:20]
    path = user_cache() / "arithmetic" / f"{key}.json"
    with ExitStack() as stack:
        try:
            stack.enter_context(_alone(path.with_suffix(".lock")))
            kept = ArithmeticTrial.model_validate_json(path.read_text(encoding="utf-8"))
            if kept.taken in map(str, arms):
                return kept, True
        except (OSError, ValidationError):
            pass  # there is none, or none that can be read
        keep_freed_memory()
        seconds = _try(settings, data, state, arms, size)
        trial = ArithmeticTrial(
            taken=choose(seconds),
            seconds={arm: tuple(times.tolist()) for arm, times in seconds.items()},
            facts=facts,
        )
        with suppress(OSError):
            write_json(path, trial.as_record())
        return trial, False


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process is inside: of two that begin at once, one tries."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _try(
    settings: Settings, data: ImageData, state: TrainState, arms: list[Arithmetic], size: int
) -> dict[str, np.ndarray]:
    """Seconds of training steps in turn, by arm; leaves random states as found."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, *state.net.input_shape, generator=generator)
    labels = torch.randint(state.net.num_classes, (size,), generator=generator)

    def arm(arithmetic: Arithmetic) -> Callable[[], object]:
        own = build_state(arithmetic.put_into(settings), data, state.device)
        own.regime.enter(0)
        layout = torch.channels_last if own.channels_last else torch.contiguous_format
        batch = Batch(images.contiguous(memory_format=layout), labels)
        totals = new_totals(own)
        return lambda: train_step(own, [batch], totals)

    with torch.random.fork_rng(devices=[]):
        steps = {str(arithmetic): arm(arithmetic) for arithmetic in arms}
        return in_turn(steps, state.device, seconds=SECONDS, most_rounds=ROUNDS)


def _in_words(trial: ArithmeticTrial, kept: bool) -> str:
    """One line."""
    seconds = {arm: np.array(times) for arm, times in trial.seconds.items()}
    simplest = next(iter(seconds))
    fast = [
        f"{arm} {np.median(seconds[simplest] / times):.2f}"
        for arm, times in seconds.items()
        if arm != simplest
    ]
    return (
        f"training in {trial.taken}: {', '.join(fast)} times as fast as {simplest} in "
        f"{'an earlier' if kept else 'a'} trial on this machine; settings.toml keeps it"
    )
