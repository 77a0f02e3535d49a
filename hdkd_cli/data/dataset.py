"""``open_data``: a data set, its splits, and every way its images are read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import torch

from hdkd_cli.choices import Role
from hdkd_cli.data.in_memory import MemoryImages
from hdkd_cli.data.order import WHOLE, Batch, Images, Order, Request, Share, Stream
from hdkd_cli.data.sources.base import FolderSource, Source
from hdkd_cli.data.splits import Split, make_splits
from hdkd_cli.data.workers import LoadedImages
from hdkd_cli.errors import SettingsError
from hdkd_cli.settings.data import DataSettings
from hdkd_cli.settings.datasets import DatasetSpec, dataset_spec
from hdkd_cli.settings.factories import call_factory
from hdkd_cli.settings.transform import describe, discards, in_words

MEMORY_LIMIT_BYTES = 2 * 2**30


def open_data(settings: DataSettings, *, without: Collection[str] = ()) -> ImageData:
    """Find the images and split them; none is decoded yet, unless ``data.skip_bad`` asks for it.

    Args:
        settings: Which images.
        without: Keys of images to leave out with ``data.skip_bad``, whether they can be read or
            not: a run goes on with the images it began with.

    Raises:
        DataError: images are missing or too few.
        SettingsError: the settings contradict each other.
    """
    spec = dataset_spec(settings.name)
    assert spec is not None  # the schema knows no other names
    _refuse_contradictions(settings, spec)
    source = _open_source(settings, spec)
    skipped: dict[str, str] = {}
    if settings.skip_bad and isinstance(source, FolderSource):
        skipped = dict.fromkeys(without, "left out before")
        skipped |= {source.keys[i]: why for i, why in source.problems(decode=True).items()}
        source = source.without(skipped)
    images = MemoryImages if _fits_in_memory(source, settings) else LoadedImages
    return ImageData(
        settings,
        source.classes,
        make_splits(source, settings),
        images(source, settings),
        skipped,
        source.others if isinstance(source, FolderSource) else {},
    )


@dataclass(frozen=True)
class ImageData:
    """Images with roles.

    The test split can be reached by ``evaluation_batches`` alone: no stream is ever made of it.

    Attributes:
        settings: What was asked for.
        classes: Class names; a label is a place in this tuple.
        splits: Role → split; ``calibration`` and ``reserve`` may be empty.
        images: How images are read.
        skipped: Images that are left out → why.
        others: Number of files that are not taken for images, by what their names end in.
    """

    settings: DataSettings
    classes: tuple[str, ...]
    splits: Mapping[Role, Split]
    images: Images
    skipped: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)

    @property
    def transform(self) -> str:
        """Canonical text of the evaluation transform, for fingerprints."""
        return describe(self.settings)

    def in_words(self) -> list[str]:
        """What is worth knowing before training: how many images, and what is done to them."""
        counts = ", ".join(
            f"{len(split):,} {role}" for role, split in self.splits.items() if len(split)
        )
        sentences = [f"{len(self.classes)} classes; images: {counts}", in_words(self.settings)]
        if self.skipped:
            sentences.append(f"{len(self.skipped)} images that cannot be read are left out")
        if self.others:
            kinds = ", ".join(
                f"{count:,} {kind or 'of none'}" for kind, count in self.others.items()
            )
            sentences.append(f"files of other kinds are left out: {kinds}")
        return sentences + list(filter(None, [discards(self.settings)]))

    def train_stream(
        self,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        channels_last: bool = True,
        share: Share = WHOLE,
    ) -> Stream:
        """Training images, reshuffled each epoch and augmented.

        The batch of a step depends only on (settings, seed, step); of it, ``share`` is read.

        Raises:
            SettingsError: the split is smaller than one batch, or there are no equal shares.
        """
        order = Order(self.splits["train"], batch_size, seed, share)
        return Stream(order, self.images, True, device, channels_last)

    def val_stream(
        self,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        channels_last: bool = True,
        share: Share = WHOLE,
    ) -> Stream:
        """Validation images, reshuffled each pass, never augmented.

        If there are fewer than ``batch_size``, every batch is all of them.

        Raises:
            SettingsError: there are no equal shares.
        """
        split = self.splits["val"]
        order = Order(split, min(batch_size, len(split)), seed, share)
        return Stream(order, self.images, False, device, channels_last)

    def evaluation_batches(
        self,
        role: Role,
        *,
        batch_size: int,
        device: torch.device,
        channels_last: bool = True,
        share: Share = WHOLE,
    ) -> Iterator[Batch]:
        """All images of a role in the order of its split, never augmented, the last batch short.

        Of several ranks, each gets whole batches in turn: some may get one more than others.

        Raises:
            DataError: an image cannot be read.
        """
        indices_N = self.splits[role].indices_N
        firsts = range(share.rank * batch_size, len(indices_N), share.ranks * batch_size)
        return self.images.batches(
            (Request(indices_N[first : first + batch_size]) for first in firsts),
            augment=False,
            device=device,
            channels_last=channels_last,
        )


def _refuse_contradictions(settings: DataSettings, spec: DatasetSpec) -> None:
    problems = []
    if settings.resize is not None and settings.resize < settings.image_size:
        problems.append(
            f"data.resize = {settings.resize} is smaller than data.image_size = "
            f"{settings.image_size}, which is cut out of it"
        )
    if min(settings.std) <= 0:
        problems.append(f"data.std = {settings.std} must be positive: it is divided by")
    if settings.in_memory == "always" and settings.augment == "resized-crop":
        problems.append(
            "data.in_memory = always does not go with data.augment = resized-crop, which cuts from "
            "the images as they are stored"
        )
    if settings.in_memory == "always" and settings.rand_augment:
        problems.append(
            "data.in_memory = always does not go with data.rand_augment, which works image by image"
        )
    if settings.options and ":" not in settings.name:
        problems.append(f"data.options: {settings.name} has none; they go with a factory's name")
    if spec.needs_root and settings.root is None:
        fetch = ", and --download fetches it there" if spec.downloadable else ""
        problems.append(f"{settings.name} needs a folder: --data-dir says where the data is{fetch}")
    if problems:
        raise SettingsError("\n".join(problems))


def _open_source(settings: DataSettings, spec: DatasetSpec) -> Source:
    if spec.open != settings.name:
        module, _, function = spec.open.partition(":")
        source: Source = getattr(import_module(module), function)(settings)
        return source
    root = None if settings.root is None else Path(settings.root).expanduser()
    return call_factory("data.name", settings.name, {"root": root}, settings.options, Source)  # type: ignore[type-abstract]


def _fits_in_memory(source: Source, settings: DataSettings) -> bool:
    by_image = settings.augment == "resized-crop" or settings.rand_augment > 0
    if by_image or settings.in_memory == "never":
        return False
    size_bytes = len(source.keys) * 3 * settings.image_size**2
    return settings.in_memory == "always" or size_bytes < MEMORY_LIMIT_BYTES
