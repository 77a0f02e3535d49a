"""Small images: all of them decoded once, held on the training device, augmented as batches.

Shape suffixes: N images, B batch, S pixels per side, 3 colours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from hdkd_cli.data.in_memory.augment import crop_and_mirror, draw_crops
from hdkd_cli.data.in_memory.pool import decoded_pool
from hdkd_cli.data.order import Batch, Request, derived_generator
from hdkd_cli.data.sources.base import Source
from hdkd_cli.data.transform import Normalise
from hdkd_cli.settings.data import DataSettings


class MemoryImages:
    """Batches out of one uint8 tensor, which is decoded when the first batch is asked for."""

    def __init__(self, source: Source, settings: DataSettings) -> None:
        assert settings.augment != "resized-crop"  # it needs the images as they were stored
        self.source = source
        self.settings = settings
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def make_ready(self, device: torch.device) -> None:
        """Decode the images (or read them from the cache) and move them to ``device``.

        Raises:
            DataError: an image cannot be read.
        """
        self._held(device)

    def _held(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """pool_N3SS and labels_N on ``device``, moved there once."""
        if device not in self._on_device:
            if device.type == "cpu":
                pool_N3SS = decoded_pool(self.source, self.settings)
                self._on_device[device] = pool_N3SS, self.source.labels_N
            else:
                pool_N3SS, labels_N = self._held(torch.device("cpu"))
                self._on_device[device] = pool_N3SS.to(device), labels_N.to(device)
        return self._on_device[device]

    def batches(
        self,
        requests: Iterable[Request],
        *,
        augment: bool,
        device: torch.device,
        channels_last: bool,
    ) -> Iterator[Batch]:
        """One batch per request. Augmentation depends on the request's (seed, epoch, step) alone:
        it is drawn for the whole batch, whatever part of it is read.

        Raises:
            DataError: an image cannot be read.
        """
        pool_N3SS, labels_N = self._held(device)
        normalise = Normalise(self.settings, device)
        padding = self.settings.padding if self.settings.augment == "pad-crop" else 0
        layout = torch.channels_last if channels_last else torch.contiguous_format
        for request in requests:
            drawn = [request.indices_B]
            if augment:
                generator = derived_generator(request.seed, "augment", request.epoch, request.step)
                drawn += draw_crops(
                    len(request.indices_B),
                    padding=padding,
                    flip=self.settings.flip,
                    generator=generator,
                )
            drawn_B = torch.stack(drawn)[:, request.part]
            indices_B, *crops = drawn_B.to(device, non_blocking=True)
            pixels = pool_N3SS[indices_B]
            if augment:
                pixels = crop_and_mirror(pixels, *crops, padding=padding)
            yield Batch(normalise(pixels.contiguous(memory_format=layout)), labels_N[indices_B])
