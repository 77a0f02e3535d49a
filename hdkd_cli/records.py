"""Everything that is printed or written as data: one class per shape, one schema id per class.

A shape may gain fields, none is renamed or removed: a reader ignores what it does not know.
Policies are records too; they are in `evaluation.policy`, beside what checks them. Imports no
torch. K exits, C classes.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, NonNegativeInt

from hdkd_cli.choices import Alarm, CompareBy, RuntimeName, Verdict

Share = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """A part of a record: frozen, every field documented."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Record(Part):
    """Something that is printed or written, with the name and version of its shape."""

    schema_id: ClassVar[str]
    """What stands under ``schema``."""
    rows: ClassVar[str | None] = None
    """The field whose entries are the rows of a table, if there is one."""
    on_request: ClassVar[frozenset[str]] = frozenset()
    """Fields that JSON holds only where they hold something."""

    def as_record(self) -> dict[str, Any]:
        """The record as JSON holds it, ``schema`` first."""
        fields = self.model_dump(mode="json", by_alias=True)
        left_out = {name for name in self.on_request if not fields[name]}
        kept = {name: value for name, value in fields.items() if name not in left_out}
        return {"schema": self.schema_id, **kept}


# -- what training leaves ---------------------------------------------------------------------


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
    origin: dict[str, str] = {}
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
    versions: dict[str, str] = {}
    """Versions of the packages that numbers depend on."""
    device: str | None = None
    """What it was trained on."""
    ranks: int | None = None
    """Processes that trained it together."""
    classes: tuple[str, ...] = ()
    """Class names in the order of the labels; empty before training begins."""
    splits: dict[str, str] = {}
    """Fingerprint of each split, by role."""
    skipped: dict[str, str] = {}
    """Images that could not be read and are left out → why."""
    imported: ImportedFile | None = None
    """What `hdkd import` read; None: it was trained here."""


# -- evaluation -------------------------------------------------------------------------------


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
    class_name: str = Field(
        serialization_alias="class", validation_alias=AliasChoices("class", "class_name")
    )
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


# -- comparison -------------------------------------------------------------------------------


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


# -- studies ----------------------------------------------------------------------------------


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


# -- inference --------------------------------------------------------------------------------


class ClassProbability(Part):
    """How probable an exit holds a class to be."""

    label: int
    """The class, from 0."""
    class_name: str = Field(
        serialization_alias="class", validation_alias=AliasChoices("class", "class_name")
    )
    """Its name (``class`` in JSON)."""
    probability: float
    """At the exit taken, after combination and temperature."""


class Audited(Part):
    """What the last exit says about an image that was audited."""

    label: int
    """The class, from 0."""
    class_name: str = Field(
        serialization_alias="class", validation_alias=AliasChoices("class", "class_name")
    )
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
    class_name: str = Field(
        serialization_alias="class", validation_alias=AliasChoices("class", "class_name")
    )
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


class Latency(Part):
    """How long a batch takes."""

    batch: int
    """Images in it."""
    median: float
    """Milliseconds."""
    p95: float
    """Milliseconds that 95 of 100 batches do not exceed."""
    runtime: RuntimeName = "torch"
    """What ran the network."""


class RuntimeTrial(Part):
    """How long the whole network takes in one runtime."""

    batch: int
    """Images that enter together."""
    runtime: RuntimeName
    """What ran it."""
    median: float
    """Milliseconds to the answers of the last exit, every exit read."""


class ProfiledExit(Part):
    """Size, cost and measured time of one exit, all earlier stages and heads included."""

    exit: int
    """Its number, from 1."""
    params: int
    """Parameters."""
    macs: int
    """Multiply-accumulates of the network as it runs."""
    macs_eager: int
    """The same for a network that computes every scale of a block."""
    ops: int
    """The count that MSDNet's repositories print as FLOPs."""
    latency_ms: Latency
    """One image at a time."""
    batch_latency_ms: Latency
    """A whole batch."""
    throughput_images_per_s: float
    """In such batches."""


class Speedup(Part):
    """Early exit against the full network, on the same images in turn."""

    batch: int
    """Images that enter together."""
    images_per_s: float
    """Leaving early."""
    runtime: RuntimeName = "torch"
    """What that is fastest in."""
    full_images_per_s: float
    """All images to the last exit, without the heads that it does not need."""
    full_runtime: RuntimeName = "torch"
    """What that is fastest in."""
    theoretical_speedup: float
    """What multiply-accumulates promise."""
    stage_time_speedup: float
    """What the measured time of the stages promises."""
    realised_speedup: float
    """What was measured."""
    realised_over_theoretical: float
    """How much of the promise of multiply-accumulates was kept."""
    realised_over_stage_time: float
    """How much of the promise of stage times was kept."""
    last_exit_images_per_s: float | None = None
    """All images to the last exit, whose answer alone counts: no other head runs. With exits that
    are combined this is a faster network than the full one, with other answers."""
    last_exit_runtime: RuntimeName = "torch"
    """What that is fastest in."""
    last_exit_theoretical_speedup: float | None = None
    """What multiply-accumulates promise against it."""
    last_exit_realised_speedup: float | None = None
    """What was measured against it."""
    regrouped_images_per_s: float | None = None
    """With samples waiting before each stage until a batch is full; None: batches of one."""
    regrouped_speedup: float | None = None
    """The same against the full network."""


class PolicyProfile(Speedup):
    """A policy's operating point, measured in batches and one image at a time."""

    kind: str
    """Kind of the policy."""
    target_macs: float | None
    """The budget the point was made for, if it was made for one."""
    thresholds: tuple[float | None, ...]
    """(K−1,)"""
    macs: float
    """Mean cost of the images that were timed."""
    exit_share: tuple[float, ...]
    """(K,): share of them that leave at each exit."""
    images: int
    """How many."""
    one_by_one: Speedup
    """The same in batches of one."""


class Profile(Record):
    """What a network costs: exit by exit, and under a policy against the full network."""

    schema_id: ClassVar[str] = "hdkd/profile/1"
    rows: ClassVar[str | None] = "exits"

    run: str | None = None
    """The run folder, if it is one that was profiled."""
    preset: str | None = None
    """The preset, if it is one that was profiled, with fresh weights."""
    device: str
    """What was measured on."""
    precision: str
    """Arithmetic."""
    exits: tuple[ProfiledExit, ...]
    """(K,)"""
    runtimes: tuple[RuntimeTrial, ...] = ()
    """What was tried; exits count in the fastest for their batch."""
    policy: PolicyProfile | None
    """The run's policy; None: there is none."""


class ExportedFile(Part):
    """A file that an export wrote."""

    name: str
    """Inside the folder."""
    bytes: int
    """Its size."""


class ExportLatency(Part):
    """Mean milliseconds per image on this machine's processor."""

    batch: int
    """Images that enter together."""
    threads: int
    """Of the processor."""
    exported_ms: float
    """The exported programs, leaving early."""
    exported_full_ms: float
    """The exported programs, all images to the last exit."""
    pytorch_ms: float
    """PyTorch, leaving early."""
    pytorch_full_ms: float
    """PyTorch, all images to the last exit."""
    fp32_ms: float | None = None
    """The same programs in fp32 under their own policy; None: these are fp32."""
    fp32_full_ms: float | None = None
    """Those, all images to the last exit."""


class ReducedExit(Part):
    """An exit of a network that was made smaller, by itself, beside what it was in fp32."""

    exit: int
    """From 1."""
    fp32_top1_pct: float
    """Accuracy before."""
    top1_pct: float
    """Accuracy after."""
    agreement_pct: float
    """Images that both give the same answer."""


class Reduction(Part):
    """What a lower precision does to a network and to its policy."""

    split: str
    """Whose images it is measured on."""
    samples: int
    """How many these are."""
    calibration_images: int | None
    """How many of them decided about the ranges of int8; None: none were needed."""
    exits: tuple[ReducedExit, ...]
    """(K,)"""
    fp32_bytes: int
    """Size of the programs before."""
    bytes: int
    """Size of the programs after."""
    fp32_policy_macs: float
    """Mean cost under the policy that was fitted on fp32, before."""
    fp32_policy_top1_pct: float
    """Its accuracy, before."""
    policy_macs: float
    """Mean cost under the policy fitted again, after."""
    policy_top1_pct: float
    """Its accuracy, after."""


class Export(Record):
    """What ``hdkd export`` wrote."""

    schema_id: ClassVar[str] = "hdkd/export/1"
    rows: ClassVar[str | None] = "files"

    folder: str
    """Where."""
    to: str
    """Format of the programs."""
    files: tuple[ExportedFile, ...]
    """All files in it."""
    latency: tuple[ExportLatency, ...] | None
    """One entry per batch size; None: not asked for."""
    shrinks: bool = True
    """Whether a batch shrinks as its images leave. If not, all of it is computed until the last
    image has left, and only batches of one save what the policy promises."""
    precision: str = "fp32"
    """How weights are stored."""
    reduction: Reduction | None = None
    """What that does; None: nothing, they are as trained."""


class ExportedTransform(Part):
    """How the runner prepares an image."""

    mode: Literal["RGB"] = "RGB"
    """Channels."""
    resize: int
    """Shorter side in pixels."""
    interpolation: str
    """How it is resized."""
    crop: int
    """Side in pixels of the square cut out of the centre."""
    mean: tuple[float, ...]
    """Subtracted per channel, on a 0..1 scale."""
    std: tuple[float, ...]
    """Divided by per channel."""


class StageProgram(Part):
    """One stage of an exported network."""

    file: str
    """Its file."""
    inputs: tuple[str, ...]
    """Names of the tensors it takes, batch first."""
    outputs: tuple[str, ...]
    """Names of the tensors it returns: logits, then the state."""


class ManifestFile(ExportedFile):
    """A file of an export, with its fingerprint."""

    sha256: str
    """Of its content."""


class Exported(Record):
    """An exported network: manifest.json of the folder, which the runner reads."""

    schema_id: ClassVar[str] = "hdkd/exported/1"

    to: str
    """Format of the programs."""
    network: str
    """Architecture."""
    checkpoint_sha256: str
    """Where the weights come from."""
    input_shape: tuple[int, ...]
    """(3, H, W)"""
    transform: ExportedTransform
    """What is done to an image first."""
    macs: tuple[int, ...]
    """(K,): cumulative multiply-accumulates."""
    programs: tuple[StageProgram, ...]
    """(K,), or one that stops by itself."""
    single_file: bool = False
    """Whether it is that one."""
    precision: str = "fp32"
    """How weights are stored."""
    weights_sha256: str | None = None
    """What a policy must be fitted on: the checkpoint, or of lower precision the stages. None: it
    was let pass with another."""
    reduction: Reduction | None = None
    """What a lower precision does; None: weights are as trained."""
    files: tuple[ManifestFile, ...]
    """All other files of the folder."""


class PageStop(Part):
    """A stop of the page's budget: one operating point."""

    thresholds: tuple[float | None, ...]
    """(K-1,): what the exits must reach; None: nothing leaves there."""
    val_macs: float
    """Mean cost on the val split."""
    val_top1_pct: float
    """Accuracy on the val split."""


class PageExample(Part):
    """An image that comes with the page."""

    file: str
    """Its file."""
    label: int
    """Its true class."""


class Page(Record):
    """What a page knows of its network: network.json beside it."""

    schema_id: ClassVar[str] = "hdkd/page/1"

    network: str
    """Architecture."""
    checkpoint_sha256: str
    """Where the weights come from."""
    runtime: str
    """What runs it, with its version."""
    labels: tuple[str, ...]
    """Class names."""
    transform: ExportedTransform
    """What is done to an image first."""
    macs: tuple[int, ...]
    """(K,): cumulative multiply-accumulates."""
    confidence: str
    """What says how sure an exit is."""
    stops: tuple[PageStop, ...]
    """Budgets, the cheapest first; the last one is the full network."""
    start: int
    """Place of the stop the page begins with."""
    examples: tuple[PageExample, ...]
    """Images of the test split, drawn at random."""


# -- settings, presets, the machine -----------------------------------------------------------


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
    expected: dict[str, Any] = {}
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
