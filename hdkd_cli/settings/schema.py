"""Every setting, its type, its default and what it means.

Defaults live here; those of the ``data`` section in ``data`` and ``datasets``, those of networks in
``networks``.

The tree is frozen and refuses unknown names. ``settings/layers.py`` fills it. This module imports
no torch, so that the command line starts at once.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from hdkd_cli.choices import (
    EquilibriumMode,
    GradientSurgery,
    Learner,
    OptimizerName,
    Parametrisation,
    Precision,
    Regime,
    Replay,
    ScheduleKind,
    Teachers,
    WeightInit,
)
from hdkd_cli.settings.data import DataSettings
from hdkd_cli.settings.factories import FACTORY
from hdkd_cli.settings.networks import ModelSettings, MSDNetSettings
from hdkd_cli.settings.section import Section

Fraction = Annotated[float, Field(ge=0, le=1)]


class ObjectiveSettings(Section):
    """The training losses (docs/concepts/method.md, section 1)."""

    teachers: Teachers = "later"
    """What teaches an exit: nothing, the last exit, all later exits, or the mean of all exits."""
    temperature: PositiveFloat = 3.0
    """Distillation temperature T; where it grows, the one it starts from. [ours]"""
    temperature_growth: Annotated[float, Field(gt=1)] | None = None
    """Factor by which T grows after each step whose last exit is confident (Phuong & Lampert,
    ICCV 2019: 1.05); absent: T stays."""
    temperature_until: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Confident: its largest probability at T, averaged over the batch, exceeds this."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each label that is spread over all classes, in training alone."""
    extra_terms: tuple[Annotated[str, Field(pattern=FACTORY)], ...] = ()
    """Losses of your own, each ``package.module:factory``, called as ``factory(num_exits=)``; it
    returns a ``TermGroup``. Their weights start at 1, and are learned like all others."""
    gradient_equilibrium: EquilibriumMode = "off"
    """Rescale gradients between exits (Li et al., ICCV 2019): on every tensor an exit hands on
    [ours], or on those its head reads (published)."""
    gradient_surgery: GradientSurgery = "off"
    """``pcgrad``: take out of each exit's gradient what points against another's (Yu et al.,
    NeurIPS 2020), for a backward pass per exit. Not for weights that hypergradients learn."""


class WeightSettings(Section):
    """How much each loss counts (docs/concepts/method.md, section 2)."""

    learned: bool = True
    """Learn the weights on validation images, or keep them as initialised."""
    learner: Learner = "hypergradient"
    """``hypergradient``: every weight, from the derivative of single steps, as in the paper;
    ``continuations``: a few shared parameters, from short continuations of training. [ours]"""
    init: WeightInit = "balanced"
    """Initial weights: docs/concepts/method.md, section 2. [ours]"""
    parametrisation: Parametrisation = "exp"
    """From the learned vector to positive weights. [ours]"""
    supervision_sum: PositiveFloat | None = None
    """Initial sum of the supervision weights; absent: K. [ours]"""
    distillation_sum: NonNegativeFloat | None = None
    """Initial sum of the distillation weights (constant under ``grouped``); absent: K−1. [ours]"""
    tilt: float = 0.0
    """Initial tilt of the supervision weights towards late exits (above 0) or early ones: their
    log-ratio at the ends is ± this. [ours]"""
    dbt_share: Fraction = 0.5
    """C of the ``dbt`` initialisation."""
    lr: PositiveFloat | None = None
    """Adam learning rate of the weights; absent: 0.01, or 2.5 over the number of updates in the run
    if that is less (docs/log.md says why). [ours]"""
    pull: NonNegativeFloat = 0.5
    """Pull towards the initial vector. [ours]"""
    interval: PositiveInt = 20
    """Optimiser steps between two updates of the weights (docs/log.md says why). [ours]"""
    val_batch_size: PositiveInt | None = None
    """Validation images per update; absent: a quarter of ``training.batch_size``, at least 16
    (docs/log.md says why). [ours]"""
    alpha: Fraction = 0.5
    """Share of the absolute part in the validation objective; the rest is the ratio part."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of the expected loss in the ratio part. [ours]"""
    rounds: PositiveInt = 2
    """Rounds of ``continuations``, spread evenly over the first 2/5 of the schedule. [ours]"""
    horizon: PositiveInt | None = None
    """Steps of a continuation before its rate falls to zero within twice as many; absent: 1/20 of
    the schedule. [ours]"""
    probe: PositiveFloat = 0.5
    """How far a round moves a shared parameter up and down, as a log-ratio of weights. [ours]"""
    noise: PositiveFloat = 0.01
    """Relative change of the validation losses between two continuations that means nothing. [ours]
    """
    replay: str | None = None
    """Run whose weights are followed over time, at the same fraction of the schedule; then nothing
    is learned. Tells what of learned weights matters. [ours]"""
    replay_as: Replay = "exact"
    """``exact``: every weight; ``group-means``: the mean log-ratio to the start of each group of
    terms; ``permuted``: the log-ratios dealt out anew within each group; ``final``: the weights at
    the end, from the start on. [ours]"""

    @property
    def by_continuations(self) -> bool:
        """Whether the weights are learned from continuations."""
        return self.learned and self.learner == "continuations"

    @model_validator(mode="after")
    def _replayed_weights_are_not_learned(self) -> Self:
        if self.replay is not None and self.learned:
            raise ValueError("replay needs learned = false: the weights follow the other run")
        return self

    @model_validator(mode="after")
    def _continuations_keep_their_own_sums(self) -> Self:
        if self.by_continuations and self.parametrisation != "exp":
            raise ValueError("learner = continuations goes with parametrisation = exp alone")
        return self


class OptimizerSettings(Section):
    """Stochastic gradient descent, or AdamW (Loshchilov & Hutter, ICLR 2019)."""

    name: OptimizerName = "sgd"
    """``adamw`` suits transformers; its rates are about a hundredth of ``sgd``'s."""
    lr: PositiveFloat = 0.1
    """Peak learning rate."""
    heads_lr: PositiveFloat | None = None
    """Peak learning rate of the exits' heads; absent: that of all parameters."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum μ; AdamW's β₁."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """AdamW's β₂; ``sgd`` has none."""
    nesterov: bool = False
    """Nesterov's momentum."""
    weight_decay: NonNegativeFloat = 1e-4
    """L2 penalty λ on all parameters that are trained; AdamW's is decoupled."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0")
        if self.nesterov and self.name == "adamw":
            raise ValueError("nesterov is a variant of sgd; set name or nesterov")
        return self


class ScheduleSettings(Section):
    """Learning rate over time; all positions are fractions of ``training.epochs``."""

    kind: ScheduleKind = "multi-step"
    """Drops at milestones, or half a cosine down to zero."""
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5, 0.75)
    """Where ``multi-step`` multiplies the rate by ``factor``."""
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """What a milestone multiplies the rate by."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Linear rise from zero over this fraction."""


class TrainingSettings(Section):
    """The training run itself."""

    seed: NonNegativeInt = 0
    """Seed of initialisation, order and augmentation. (``--seed``)"""
    epochs: PositiveInt = 30
    """Passes over the training split; the schedule spans them."""
    max_steps: PositiveInt | None = None
    """End early after this many optimiser steps; never changes the schedule."""
    max_minutes: PositiveFloat | None = None
    """Pause after so many minutes of training: the run is saved, and ``--resume`` goes on."""
    regime: Regime = "joint"
    """All exits together; ``disjoint``: heads on a frozen backbone; ``mixed``: the backbone with
    its last exit first, then all together (Kubaty et al., 2024)."""
    backbone_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the steps of ``mixed`` that train the backbone with its last exit. [ours]"""
    mixup: NonNegativeFloat = 0.0
    """α of mixup: pairs of images are blended; 0: none. With ``cutmix``, each batch gets one."""
    cutmix: NonNegativeFloat = 0.0
    """α of CutMix: a rectangle of one image is put into another; 0: none."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the exponential moving average of the parameters, which is what is evaluated and
    saved, 0.999 say; 0: none."""
    batch_size: PositiveInt = 64
    """Images per optimiser step."""
    accumulate: PositiveInt = 1
    """Micro-batches per step."""
    precision: Literal["auto", Precision] = "auto"
    """Arithmetic of convolutions and matrix products; ``fp16`` needs CUDA. ``auto``: fp32, or bf16
    where the CPU has units for it and a trial of a few steps finds it faster; runs of a few minutes
    try nothing. What bf16 does to accuracy is measured (docs/log.md)."""
    compile: bool = False
    """Compile the network before the first step: faster steps after a wait of minutes, which is
    shorter for a network that was compiled before. Needs a C++ compiler on a CPU."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N, or mps (experimental). (``--device``)"""
    channels_last: bool | None = None
    """Keep images in NHWC memory order; absent: on CUDA, and on a CPU where the trial of
    ``precision`` finds it faster."""
    log_every: PositiveInt = 20
    """Steps between two records of losses."""
    evaluate_every: PositiveInt = 1
    """Epochs between two measurements on the validation split."""
    checkpoint_every: PositiveInt = 1
    """Epochs between two checkpoints (one is also written at the end and on a signal)."""
    keep_checkpoints: PositiveInt = 2
    """Newest checkpoints to keep."""
    keep_every: PositiveInt | None = None
    """Also keep the checkpoint of every so many epochs; absent: only the newest."""
    init_from: str | None = None
    """Run whose network the parameters start from, where names and shapes agree. (``--init-from``)
    """

    @model_validator(mode="after")
    def _micro_batches_are_equal(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError("batch_size must be a multiple of accumulate")
        return self


class EvaluationSettings(Section):
    """How scores are collected and read."""

    batch_size: PositiveInt = 256
    """Images per forward pass."""
    ece_bins: PositiveInt = 15
    """Equal-width bins of the expected calibration error."""


class Settings(Section):
    """One run, completely described."""

    schema_version: ClassVar[str] = "hdkd/settings/1"

    data: DataSettings = DataSettings()
    model: ModelSettings = MSDNetSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    weights: WeightSettings = WeightSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @property
    def val_batch_size(self) -> int:
        """Validation images per update of the weights."""
        return self.weights.val_batch_size or max(16, self.training.batch_size // 4)
