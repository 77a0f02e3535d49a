"""What a network costs: parameters, multiply-accumulates, time. K exits."""

from __future__ import annotations

from typing import ClassVar

from hdkd_cli.choices import RuntimeName
from hdkd_cli.records.base import Part, Record


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
