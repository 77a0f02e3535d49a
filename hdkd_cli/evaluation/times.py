"""What exits cost in seconds, as measured on the device that is to run them. K exits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from hdkd_cli.choices import RuntimeName
from hdkd_cli.errors import BudgetError, PolicyError, UsageError
from hdkd_cli.reading import parse_record, read_text
from hdkd_cli.records.base import Part
from hdkd_cli.records.profile import Profile

_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(ms|us|µs|s)")
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}


SLACK = 1e-12
"""Seconds by which sums of times may exceed a budget: what floating point adds to them."""


class ExitTimes(Part):
    """How long it takes to leave at each exit, everything before it included."""

    seconds: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
    """(K,), of one image, to the nanosecond; they never fall from one exit to the next."""
    batch: PositiveInt
    """How many images entered together."""
    runtime: RuntimeName
    """What ran the network."""
    device: str
    """What they were measured on."""
    source: str
    """Where they come from."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if any(later < earlier for earlier, later in pairwise(self.seconds)):
            raise ValueError("an exit takes less time than the one before it")
        return self

    @property
    def nanoseconds_K(self) -> tuple[int, ...]:
        """In whole numbers, as searches take costs."""
        return tuple(max(1, round(1e9 * seconds)) for seconds in self.seconds)

    def mean(self, count_PK: NDArray[np.int64]) -> NDArray[np.float64]:
        """Seconds per image where so many leave at each exit, (P,)."""
        mean_P: NDArray[np.float64] = count_PK @ np.array(self.seconds) / count_PK.sum(axis=1)
        return mean_P

    def refuse_impossible(self, budgets: Sequence[float]) -> None:
        """See that the first exit is fast enough for every budget.

        Raises:
            BudgetError: it is not.
        """
        for seconds in budgets:
            if seconds < self.seconds[0] - SLACK:
                raise BudgetError(
                    f"a budget of {1e3 * seconds:.4g} ms: the first exit already takes "
                    f"{1e3 * self.seconds[0]:.4g}, no policy can be faster"
                )


def parse_time(text: str) -> float | None:
    """The seconds that ``text`` stands for: ``3ms``, ``250us``, ``0.01s``; None: it is no time.

    Raises:
        UsageError: it is no time at all, but 0.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds == 0:
        raise UsageError(f"budget {text!r}: nothing takes no time")
    return seconds


def times_of(profile: Profile, macs_K: Sequence[int], source: str, *, batched: bool) -> ExitTimes:
    """The times of a profile.

    A later exit that was measured to be faster than an earlier one is noise: it counts as no
    faster. [ours]

    Args:
        profile: What was measured.
        macs_K: What the exits cost of the network that the times are for.
        source: Where it was found, for the record.
        batched: Per image of a batch, instead of one image at a time.

    Raises:
        PolicyError: it is a profile of another network.
    """
    profiled = tuple(row.macs for row in profile.exits)
    if profiled != tuple(macs_K):
        raise PolicyError(
            f"{source}: is the profile of another network: its exits cost "
            f"{', '.join(f'{macs:,}' for macs in profiled)} MACs, not "
            f"{', '.join(f'{macs:,}' for macs in macs_K)}",
            hint="run `hdkd profile` on this one",
        )
    found = [row.batch_latency_ms if batched else row.latency_ms for row in profile.exits]
    size = found[0].batch
    return ExitTimes(
        seconds=tuple(accumulate((round(one.median / 1000 / size, 9) for one in found), max)),
        batch=size,
        runtime=found[0].runtime,
        device=profile.device,
        source=source,
    )


def read_profile(path: Path) -> Profile:
    """Read what ``hdkd profile`` wrote.

    Raises:
        PolicyError: the file is missing, or is no profile.
    """
    return parse_record(
        Profile, Profile.schema_id, read_text(path, PolicyError), str(path), PolicyError
    )
