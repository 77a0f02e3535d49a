"""Methods × seeds × settings: what was run, what it says, what it will take."""

from __future__ import annotations

from typing import ClassVar

from hdkd_cli.records.base import Part, Record


class StudyRow(Part):
    """One run of a study."""

    setting: str
    """Name of the setting."""
    method: str
    """Name of the method."""
    seed: int
    """The seed."""
    epochs: int
    """Passes over the training images."""
    split: str
    """Images that accuracies were measured on."""
    samples: int
    """How many of them there were."""
    top1_pct: tuple[float, ...]
    """Accuracy of every exit."""
    mean_top1_pct: float
    """Their mean."""
    nll: tuple[float | None, ...]
    """Mean negative log-likelihood of every exit, in nats; None if it is infinite."""
    budgets: tuple[float, ...]
    """Budgets, as fractions of the full network's MACs."""
    single_top1_pct: tuple[float | None, ...]
    """Accuracy within each budget, every exit for itself; thresholds from val. None: the first
    exit costs more."""
    combined_top1_pct: tuple[float | None, ...]
    """Accuracy within each budget, each exit with the mean of those before it."""
    seconds: float
    """Time that its steps took, and the continuations that its weights were learned from."""
    precision: str
    """Arithmetic it was trained in."""
    channels_last: bool | None = None
    """Its memory order; None: the device's own."""
    revision: str | None
    """Revision of the source it was trained with."""
    device: str
    """What it was trained on."""
    settings_sha256: str
    """Of its settings, but for where its images are and what it ran on."""


class Contrast(Part):
    """A method against a reference, in points of accuracy, paired by seed."""

    setting: str
    """Name of the setting."""
    reference: str
    """The method that is subtracted."""
    method: str
    """The method."""
    quantity: str
    """``mean`` over exits, ``exit 1``.., or ``combined 0.5`` within a budget."""
    seeds: int
    """Seeds that both have."""
    value: float
    """Mean difference."""
    per_seed: tuple[float, ...]
    """The difference of each seed."""
    t_low: float | None = None
    """Lower end of Student's 95 % t interval; absent with one seed."""
    t_high: float | None = None
    """Its upper end."""
    bootstrap_low: float | None = None
    """Lower end of the 95 % percentile bootstrap over seeds: too narrow for a handful of them."""
    bootstrap_high: float | None = None
    """Its upper end."""
    p: float | None = None
    """Two-sided p-value of the paired t test, for this contrast alone."""
    p_holm: float | None = None
    """The same, adjusted for all methods that are compared with the reference in the setting."""


class Overall(Part):
    """A method against a reference over all settings of a plan, each counting alike."""

    reference: str
    """The method that is subtracted."""
    method: str
    """The method."""
    quantity: str
    """As in a contrast."""
    settings: int
    """How many there are."""
    seeds: int
    """Pairs of runs in all of them."""
    value: float
    """Mean over settings of the mean differences."""
    t_low: float | None = None
    """Lower end of its 95 % t interval over seeds (Welch–Satterthwaite); absent: no spread."""
    t_high: float | None = None
    """Its upper end."""
    p: float | None = None
    """Two-sided p-value, for this comparison alone."""
    p_holm: float | None = None
    """The same, adjusted for all methods that are compared with the reference."""


class WeightsAlike(Part):
    """How alike the learned weights of different seeds are."""

    setting: str
    """Name of the setting."""
    method: str
    """Name of the method."""
    pairs: int
    """Pairs of seeds."""
    correlation: float | None
    """Mean over pairs of the correlation of the log-weights' deviations from the mean of their
    kind, averaged over the run: 1 where seeds agree on the trade-off, 0 where it is noise. A common
    factor of a kind does not count. None: no term deviates."""
    correlation_all: float | None
    """The same for deviations from the mean of all terms: kinds against each other count too."""
    common_pct: float
    """Share of the log-weights' squared movement that is their groups' common factor."""


class Study(Record):
    """A study: what was run, and what it says."""

    schema_id: ClassVar[str] = "hdkd/study/1"
    rows: ClassVar[str | None] = "runs"

    runs: tuple[StudyRow, ...]
    """One entry per finished run."""
    contrasts: tuple[Contrast, ...]
    """Every method against every reference."""
    overall: tuple[Overall, ...] = ()
    """The same over all settings, if there are several, for methods with two seeds in each."""
    weights: tuple[WeightsAlike, ...]
    """How alike seeds are in what they learned."""
    failed: dict[str, str]
    """Runs that failed, with what they said."""


class RunEstimate(Part):
    """One run of a study: how far it is, and how long it takes."""

    run: str
    """Its name."""
    state: str
    """``done``, ``begun`` or ``missing``."""
    hours: float
    """Time its steps take, or took, on one thread."""


class SignalEntry(Part):
    """How much one way of learning the weights sees, at one moment of training."""

    setting: str
    """Name of the setting."""
    step: int
    """Optimiser steps done."""
    lr: float
    """Learning rate there."""
    candidate: str
    """What was drawn repeatedly."""
    draws: int
    """How often, each time from other training and validation images."""
    signal_to_noise: float | None
    """|mean| / standard deviation of one draw, mean over terms (trade-offs for continuations)."""
    sign_agreement: float | None
    """Probability that two draws agree on the sign of a term's deviation from the mean of its kind;
    0.5 is a coin."""
    halves_cosine: float | None
    """Cosine between the mean deviations of the first and of the second half of the draws."""
    tradeoffs: dict[str, float]
    """Mean derivative (continuations: difference) by trade-off: below 0 asks for more of it."""
    t_values: dict[str, float]
    """The same over its standard error."""


class Signal(Record):
    """What a hypergradient and its rivals see before anything is trained with them."""

    schema_id: ClassVar[str] = "hdkd/signal/1"
    rows: ClassVar[str | None] = "entries"

    entries: tuple[SignalEntry, ...]
    """Every candidate at every moment."""


class StudyEstimate(Record):
    """What a study will take."""

    schema_id: ClassVar[str] = "hdkd/study-estimate/1"
    rows: ClassVar[str | None] = "runs"

    runs: tuple[RunEstimate, ...]
    """Every run, in order."""
    missing_hours: float
    """Hours of one thread that are still to come."""
