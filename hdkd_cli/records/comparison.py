"""Networks side by side: accuracies, differences, intervals."""

from __future__ import annotations

from typing import ClassVar, Literal

from hdkd_cli.choices import CompareBy, Verdict
from hdkd_cli.records.base import Part, Record


class Measure(Part):
    """What an accuracy of a comparison is of."""

    what: str
    """In words: an exit, a policy at a budget, a policy averaged over budgets."""
    exit: int | None
    """The exit at which all images leave, from 1; None: a policy decides."""
    policy: str | None
    """The policy; None: an exit alone."""
    budget_macs: float | None
    """The budget; None: an exit alone, or an average over budgets."""


class Level(Measure):
    """Accuracy of one side of a comparison."""

    mean_pct: float
    """Mean over its seeds."""
    deviation_pct: float | None
    """Standard deviation over them (n − 1); None for one run."""
    min_pct: float
    """The worst."""
    max_pct: float
    """The best."""


class ComparedSide(Part):
    """One side of a comparison: a run, or the seeds of a method."""

    name: str
    """What the comparison calls it."""
    runs: tuple[str, ...]
    """Run folders, or score files."""
    seeds: tuple[int | None, ...]
    """Their seeds; None: not known."""
    levels: tuple[Level, ...]
    """Its accuracy, measure by measure."""


class Difference(Measure):
    """How far one side is from the first, in percentage points: other minus first."""

    other: str
    """The side."""
    first_pct: float
    """Accuracy of the first side, over the seeds both have."""
    other_pct: float
    """Accuracy of the other side, over them."""
    difference_pct: float
    """Other minus first."""
    low_pct: float
    """Lower end of the paired bootstrap interval over images; networks as they are trained."""
    high_pct: float
    """Upper end."""
    seeds: int | None
    """Seeds that both sides have; None: none."""
    seeds_deviation_pct: float | None = None
    """Standard deviation of the differences over seeds (n − 1); None: fewer than two seeds."""
    seeds_t_low_pct: float | None = None
    """Lower end of Student's t interval over seeds."""
    seeds_t_high_pct: float | None = None
    """Upper end."""
    seeds_bootstrap_low_pct: float | None = None
    """Lower end of the percentile bootstrap interval over seeds; too narrow for a few seeds."""
    seeds_bootstrap_high_pct: float | None = None
    """Upper end."""
    p: float | None = None
    """Two-sided p-value of the paired t test over seeds, for this difference alone."""
    p_holm: float | None = None
    """Adjusted by Holm's method for ``comparisons``; None: not one of those."""
    verdict: Verdict
    """Whether the interval excludes 0, and on which side it lies."""
    verdict_over: Literal["images", "seeds"]
    """Which interval that is: over seeds (Student's t) where there are several, else images."""


class Incomparable(Part):
    """A run that was not compared."""

    name: str
    """The run."""
    reason: str
    """Why."""


class Comparison(Record):
    """Trained networks on the same images: differences to the first with their intervals."""

    schema_id: ClassVar[str] = "hdkd/comparison/1"
    rows: ClassVar[str | None] = "differences"

    by: CompareBy
    """Whether a side is a run, or all seeds of a method."""
    dataset: str | None
    """What was tested on; None: the scores do not say."""
    split: str | None
    """Which images of it; None: the scores do not say."""
    samples: int
    """How many."""
    first: str
    """The side that the others are compared with."""
    level_pct: float
    """Level of all intervals."""
    resamples: int
    """Of each bootstrap."""
    comparisons: int
    """Differences that count as comparisons of their own: exits, budgets that were asked for, and
    means. About 1 in 20 of their intervals misses by chance alone."""
    sides: tuple[ComparedSide, ...]
    """The first one first."""
    incomparable: tuple[Incomparable, ...]
    """Runs on other images, which get no number."""
    notes: tuple[str, ...]
    """Sentences on what was left out."""
    differences: tuple[Difference, ...]
    """Every other side, measure by measure."""
