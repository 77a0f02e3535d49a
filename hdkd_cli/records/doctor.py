"""Whether a machine, or a network, is in order."""

from __future__ import annotations

from typing import ClassVar, Literal

from hdkd_cli.records.base import Part, Record


class DoctorCheck(Part):
    """One thing that was looked at."""

    check: str
    """What."""
    status: Literal["ok", "warning", "error"]
    """How it is."""
    detail: str
    """What was found."""


class Doctor(Record):
    """Whether this machine can train, or a network keeps its contract."""

    schema_id: ClassVar[str] = "hdkd/doctor/1"
    rows: ClassVar[str | None] = "checks"

    healthy: bool
    """Nothing that is needed is broken."""
    checks: tuple[DoctorCheck, ...]
    """In the order of looking."""
