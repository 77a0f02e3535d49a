"""Which images at which step, as a pure function of (settings, seed, step).

Shape suffixes: B batch, N images of a split, H W pixels.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from hdkd_cli.data.sources.base import Source
from hdkd_cli.data.splits import Split
from hdkd_cli.errors import SettingsError


class Batch(NamedTuple):
    """Images and labels on the device that trains."""

    images: Tensor
    """float32 (B, 3, H, W), normalised."""
    labels: Tensor
    """int64 (B,)."""


class Share(NamedTuple):
    """What one of several processes reads of everything: every rank's share is equally large."""

    rank: int = 0
    ranks: int = 1

    def of(self, batch_size: int) -> slice:
        """Its images of a batch: as many as any other rank's, side by side."""
        images = batch_size // self.ranks
        return slice(self.rank * images, (self.rank + 1) * images)


WHOLE = Share()
"""What the only process reads."""


class Request(NamedTuple):
    """The images of one batch, and what their augmentation is drawn from."""

    indices_B: Tensor
    """Places in the source, int64, on the CPU."""
    seed: int = 0
    epoch: int = 0
    step: int = 0
    part: slice = slice(None)
    """The images of the batch that are read; augmentation does not depend on it."""


class Images(Protocol):
    """One way of turning requests into batches (in_memory, workers)."""

    @property
    def source(self) -> Source:
        """Where they come from."""

    def make_ready(self, device: torch.device) -> None:
        """Do now what the first batch would otherwise wait for."""

    def batches(
        self,
        requests: Iterable[Request],
        *,
        augment: bool,
        device: torch.device,
        channels_last: bool,
    ) -> Iterator[Batch]: ...


def derived_seed(*counters: int | str) -> int:
    """A 63-bit seed for this combination of counters, unrelated to those of all others."""
    digest = hashlib.sha256("/".join(map(str, counters)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def derived_generator(*counters: int | str) -> torch.Generator:
    """A CPU generator for this combination of counters."""
    return torch.Generator().manual_seed(derived_seed(*counters))


@dataclass(frozen=True)
class Order:
    """An endless order of a split's images: shuffled anew each epoch, partial batches dropped.

    Attributes:
        split: The images.
        batch_size: Images per step, over all ranks.
        seed: Of the shuffles.
        share: What of each batch is read here.
    """

    split: Split
    batch_size: int
    seed: int
    share: Share = WHOLE

    def __post_init__(self) -> None:
        if not 0 < self.batch_size <= len(self.split):
            raise SettingsError(
                f"the {self.split.role} split has {len(self.split)} images, fewer than one batch "
                f"of {self.batch_size}",
                hint="lower training.batch_size or give it more images",
            )
        if self.batch_size % self.share.ranks:
            section = "training." if self.split.role == "train" else "weights.val_"
            raise SettingsError(
                f"{self.share.ranks} ranks cannot share {self.batch_size} {self.split.role} images "
                "equally",
                hint=f"set {section}batch_size to a multiple of {self.share.ranks}",
            )

    @property
    def steps_per_epoch(self) -> int:
        return len(self.split) // self.batch_size

    def requests(self, first_step: int) -> Iterator[Request]:
        """What steps ``first_step``, ``first_step + 1``, … read."""
        part = self.share.of(self.batch_size)
        for epoch in itertools.count(first_step // self.steps_per_epoch):
            generator = derived_generator(self.seed, self.split.role, "order", epoch)
            order_N = self.split.indices_N[torch.randperm(len(self.split), generator=generator)]
            begun = epoch * self.steps_per_epoch
            for step in range(max(begun, first_step), begun + self.steps_per_epoch):
                first = (step - begun) * self.batch_size
                indices_B = order_N[first : first + self.batch_size]
                yield Request(indices_B, self.seed, epoch, step, part)


@dataclass(frozen=True)
class Stream:
    """Batches in ``order`` for ever; any step can be the first.

    Attributes:
        order: Which images when.
        images: How they are read.
        augment: Whether they are augmented.
        device: Where the batches go.
        channels_last: Memory order of the batches.
    """

    order: Order
    images: Images
    augment: bool
    device: torch.device
    channels_last: bool

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the split."""
        return self.order.steps_per_epoch

    def batches(self, first_step: int = 0) -> Iterator[Batch]:
        """The batches of steps ``first_step``, ``first_step + 1``, … without end."""
        return self.images.batches(
            self.order.requests(first_step),
            augment=self.augment,
            device=self.device,
            channels_last=self.channels_last,
        )
