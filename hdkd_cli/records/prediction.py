"""What the network says about an image."""

from __future__ import annotations

from typing import ClassVar

from hdkd_cli.choices import Alarm
from hdkd_cli.records.base import ClassName, Part, Record


class ClassProbability(Part):
    """How probable an exit holds a class to be."""

    label: int
    """The class, from 0."""
    class_name: ClassName
    """Its name (``class`` in JSON)."""
    probability: float
    """At the exit taken, after combination and temperature."""


class Audited(Part):
    """What the last exit says about an image that was audited."""

    label: int
    """The class, from 0."""
    class_name: ClassName
    """Its name (``class`` in JSON)."""
    agrees: bool
    """Whether it is the answer that was given."""


class Prediction(Record):
    """What the network says about one image, and where it left."""

    schema_id: ClassVar[str] = "hdkd/prediction/1"
    on_request: ClassVar[frozenset[str]] = frozenset({"top", "truth", "audit", "alarms"})

    image: str | None
    """Its path; None for an image that came from memory."""
    label: int
    """The predicted class, from 0."""
    class_name: ClassName
    """Its name (``class`` in JSON)."""
    exit: int
    """The exit taken, from 1."""
    confidence: float
    """How sure that exit was, in the policy's measure."""
    macs: int
    """Multiply-accumulates up to that exit."""
    top: tuple[ClassProbability, ...] = ()
    """The most probable classes, as many as were asked for."""
    truth: str | None = None
    """The class whose folder it lies in, where the images are labelled."""
    audit: Audited | None = None
    """The last exit's answer; None: this image was not audited."""
    alarms: tuple[Alarm, ...] = ()
    """Promises of the policy that were found broken, up to this batch."""
