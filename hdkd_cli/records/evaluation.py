"""What a network is worth on a split: exit by exit, and under a policy. K exits, C classes."""

from __future__ import annotations

from typing import ClassVar

from hdkd_cli.records.base import ClassName, Part, Record


class AnytimeExit(Part):
    """One exit, if all images leave there. Costs are cumulative; None: the scores do not say."""

    exit: int
    """Its number, from 1."""
    macs: int
    """Multiply-accumulates of the network as it runs."""
    macs_eager: int | None
    """The same for a network that computes every scale of a block."""
    ops: int | None
    """The count that MSDNet's repositories print as FLOPs."""
    params: int | None
    """Parameters."""
    top1_pct: float
    """Accuracy."""
    top5_pct: float
    """Share of images whose class is among the five most probable."""
    nll: float | None
    """Mean negative log-likelihood in nats; None if it is infinite."""
    ece_pct: float
    """Expected calibration error."""
    auroc: float | None
    """How well the largest probability tells right from wrong; None where all answers are alike."""


class ClassAccuracy(Part):
    """How often the images of one class are recognised."""

    label: int
    """The class, from 0."""
    class_name: ClassName
    """Its name (``class`` in JSON); its number, where no run says."""
    samples: int
    """Images of it."""
    top1_pct: tuple[float | None, ...]
    """(K,): accuracy on them at each exit; None: there are none."""


class Anytime(Record):
    """Accuracy, likelihood and calibration of each exit against its cost."""

    schema_id: ClassVar[str] = "hdkd/anytime/1"
    rows: ClassVar[str | None] = "exits"
    on_request: ClassVar[frozenset[str]] = frozenset({"images", "per_class", "confusion"})

    run: str | None
    """Run folder, or score file."""
    split: str | None
    """Which images; None: the scores do not say."""
    combination: str
    """How an exit uses the exits before it."""
    samples: int
    """How many images."""
    exits: tuple[AnytimeExit, ...]
    """(K,)"""
    images: str | None = None
    """The folder they are in, if they are no split of the run."""
    per_class: tuple[ClassAccuracy, ...] = ()
    """(C,), where it was asked for."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """(C, C), where it was asked for: images of class row that the last exit takes for column."""


class BudgetPoint(Part):
    """One operating point of a policy on a split; costs are averages over its images."""

    target_macs: float | None
    """The budget it was made for, if it was made for one."""
    macs: float
    """Multiply-accumulates of the network as it runs."""
    macs_eager: float | None
    """The same for a network that computes every scale of a block; None: not known."""
    ops: float | None
    """The count that MSDNet's repositories print as FLOPs; None: not known."""
    top1_pct: float
    """Accuracy."""
    exit_share: tuple[float, ...]
    """(K,): share of the images that leave at each exit."""
    thresholds: tuple[float | None, ...]
    """(K−1,): leave at exit k if its confidence is at least this; None: exit k is not used."""
    target_seconds: float | None = None
    """The budget of time it was made for, if it was made for one."""
    expected_seconds: float | None = None
    """Per image, by the times that the policy was made for; None: it has none."""
    seconds_per_image: float | None = None
    """Measured, where it was asked for."""
    measured_speedup: float | None = None
    """Against the full network on the same images, where it was asked for."""


class Budget(Record):
    """Every operating point of a policy on a split."""

    schema_id: ClassVar[str] = "hdkd/budget/1"
    rows: ClassVar[str | None] = "points"
    on_request: ClassVar[frozenset[str]] = frozenset({"images"})

    run: str | None
    """Run folder, or score file."""
    split: str | None
    """Which images; None: the scores do not say."""
    policy: str
    """Kind of the policy."""
    samples: int
    """How many images."""
    points: tuple[BudgetPoint, ...]
    """In the order of the policy's."""
    images: str | None = None
    """The folder they are in, if they are no split of the run."""

    @property
    def best(self) -> BudgetPoint:
        """The point of highest accuracy; the first of them on ties."""
        return max(self.points, key=lambda point: point.top1_pct)
