"""Whether a policy keeps what it promised. K exits."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, NonNegativeInt

from hdkd_cli.choices import Alarm
from hdkd_cli.records.base import Part, Record

Share = Annotated[float, Field(ge=0, le=1)]


class Interval(Part):
    """A mean, and where it lies in the long run, at all times at once."""

    mean: float
    """Of what was seen."""
    low: Share
    """Lower end."""
    high: Share
    """Upper end."""


class Audit(Record):
    """What a policy that watches itself has seen: the file of ``--audit-state``."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    schema_id: ClassVar[str] = "hdkd/audit/1"

    watched_sha256: str
    """Fingerprint of the checkpoint, and of all that decides when images leave."""
    max_risk: Annotated[float, Field(gt=0, lt=1)]
    """Promised: share of images with another answer than the last exit's."""
    max_cost: Annotated[float, Field(gt=0, le=1)]
    """Promised: mean cost, of the full network's."""
    delta: Annotated[float, Field(gt=0, lt=1)]
    """Probability of an alarm although both promises are kept."""
    exits: tuple[NonNegativeInt, ...]
    """(K,): images that left at each exit."""
    audited: NonNegativeInt
    """Images that went to the last exit besides."""
    disagreed: NonNegativeInt
    """Those of them that it answers otherwise."""
    alarms: tuple[Alarm, ...]
    """Promises that were found broken."""
    risk: Interval | None
    """Share of images with another answer; None: none was audited."""
    cost: Interval | None
    """Mean cost, of the full network's; None: no images."""
