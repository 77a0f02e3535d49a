"""What an export holds: programs, their precision, a page. K exits."""

from __future__ import annotations

from typing import ClassVar, Literal

from hdkd_cli.records.base import Part, Record


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
