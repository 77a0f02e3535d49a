"""Presets, and the settings of a run."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from hdkd_cli.records.base import Part, Record


class PresetEntry(Part):
    """A preset that comes with hdkd."""

    name: str
    """What ``hdkd train`` calls it."""
    summary: str | None = None
    """What is trained on what, and how long it takes."""
    status: str | None = None
    """starter, or reproduced."""
    source: str | None = None
    """Paper, table or reasoning the settings come from."""
    expected: dict[str, Any] = Field(default_factory=dict)
    """What a run should reach, for reproduced presets."""


class Presets(Record):
    """All presets."""

    schema_id: ClassVar[str] = "hdkd/presets/1"
    rows: ClassVar[str | None] = "presets"

    presets: tuple[PresetEntry, ...]
    """By name."""


class ResolvedSettings(Record):
    """The settings that a run would use, and which layer set each."""

    schema_id: ClassVar[str] = "hdkd/resolved/1"

    settings: dict[str, Any]
    """Section → key → value."""
    origin: dict[str, str]
    """Key → the layer its value comes from."""
    notes: tuple[str, ...]
    """Sentences about keys that were dropped."""
