"""What training leaves: how a run was made, and in which arithmetic."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from hdkd_cli.records.base import Part, Record


class ArithmeticTrial(Record):
    """What a trial of training steps found, kept in the user's cache folder."""

    schema_id: ClassVar[str] = "hdkd/arithmetic/1"

    taken: str
    """The arm that was taken."""
    seconds: dict[str, tuple[float, ...]]
    """Seconds of a step in every round, by arm, the simplest first."""
    facts: dict[str, str]
    """What it depends on: processor, threads, network, batch and the like."""


class ImportedFile(Part):
    """The file that a network was imported from."""

    file: str
    """Its path."""
    sha256: str
    """Its fingerprint."""


class RunInfo(Record):
    """How a run was started and how it ended: run.json. None: not known, or not yet."""

    schema_id: ClassVar[str] = "hdkd/run/1"

    preset: str
    """The preset it began from."""
    seed: int
    """Seed of initialisation, order and augmentation."""
    created: str
    """When, in UTC."""
    launch: str | None = None
    """The job that made it, where several processes train together."""
    origin: dict[str, str] = Field(default_factory=dict)
    """Key of a setting → the layer that set it when the run was made."""
    status: str
    """created, running, finished, paused, interrupted, diverged or failed."""
    exit_code: int | None = None
    """That of the program, once it ended."""
    ended: str | None = None
    """When, in UTC."""
    argv: tuple[str, ...] = ()
    """The command line."""
    git_revision: str | None = None
    """Revision of hdkd, "+" appended when the tree had changes."""
    python: str | None = None
    """Version of Python."""
    platform: str | None = None
    """Operating system and machine."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions of the packages that numbers depend on."""
    device: str | None = None
    """What it was trained on."""
    ranks: int | None = None
    """Processes that trained it together."""
    classes: tuple[str, ...] = ()
    """Class names in the order of the labels; empty before training begins."""
    splits: dict[str, str] = Field(default_factory=dict)
    """Fingerprint of each split, by role."""
    skipped: dict[str, str] = Field(default_factory=dict)
    """Images that could not be read and are left out → why."""
    imported: ImportedFile | None = None
    """What `hdkd import` read; None: it was trained here."""
