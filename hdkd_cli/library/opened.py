"""A run opened for use: its images, its network, its scores.

N images, C channels, H W pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from hdkd_cli.choices import HeldOut, RuntimeKind
from hdkd_cli.data import ImageData, LabelledImages, open_labelled
from hdkd_cli.data.order import Request
from hdkd_cli.devices import resolve_device, use_channels_last
from hdkd_cli.errors import DataError
from hdkd_cli.evaluation.scores import Scores, write_scores
from hdkd_cli.inference.any_image import Transform
from hdkd_cli.inference.collect import collect
from hdkd_cli.inference.fold import memory_order
from hdkd_cli.inference.runtime import Runtimes
from hdkd_cli.library.kept import KeptRun
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.models.cost import ExitCosts, measure_costs
from hdkd_cli.runs.images import images_of_run
from hdkd_cli.runs.network import trained_network


class Drawn(NamedTuple):
    """Some images of a split."""

    places: list[int]
    """Where in the split, in the order of the images."""
    images_NCHW: Tensor


@dataclass(frozen=True, kw_only=True)
class OpenedRun(KeptRun):
    """What a run knows: images, network and scores. The fields are those of `Run`."""

    runtime: RuntimeKind = "auto"

    # -- what it is ---------------------------------------------------------------------------

    @cached_property
    def transform(self) -> Transform:
        """How an image is prepared for the network."""
        return Transform(self.settings.data)

    @property
    def images_per_pass(self) -> int:
        """Images per forward pass."""
        return self.batch_size or self.reading.batch_size

    @cached_property
    def where(self) -> torch.device:
        """What it runs on."""
        return resolve_device(self.device or "auto")

    # -- images -------------------------------------------------------------------------------

    @cached_property
    def images(self) -> ImageData:
        """Its images, compared with those it was trained on.

        Raises:
            DataError: they are missing, or others.
        """
        return images_of_run(self.folder, self.data_dir)

    def data(self, split: HeldOut) -> ImageData:
        """Its images, if a split has any.

        Raises:
            DataError: they are missing, or others; the split is empty.
        """
        if not len(self.images.splits[split]):
            raise DataError(f"{self.path}: its {split} split is empty")
        return self.images

    def drawn(self, split: HeldOut, count: int) -> Tensor:
        """The places of these images in the split."""
        size = len(self.data(split).splits[split])
        return torch.randperm(size, generator=torch.Generator().manual_seed(0))[:count]

    def draw(self, split: HeldOut, count: int, device: torch.device | None = None) -> Drawn:
        """At most ``count`` images of a split, drawn at random, always the same: folders are sorted
        by class, and any part of these is as mixed as the whole."""
        data, device = self.data(split), device or self.where
        indices_N = data.splits[split].indices_N
        drawn = self.drawn(split, count)
        (batch,) = data.images.batches(
            [Request(indices_N[drawn])],
            augment=False,
            device=device,
            channels_last=memory_order(device) is torch.channels_last,
        )
        return Drawn(drawn.tolist(), batch.images)

    # -- network ------------------------------------------------------------------------------

    def network(self) -> MultiExitNet:
        """The trained network, on the CPU, in evaluation mode.

        Raises:
            RunError: the run never began to train.
            CheckpointError: there is no usable checkpoint.
        """
        return copy.deepcopy(self._trained)

    @cached_property
    def _trained(self) -> MultiExitNet:
        return trained_network(self.folder)

    @cached_property
    def costs(self) -> ExitCosts:
        """What its exits cost."""
        return measure_costs(self._trained)

    @cached_property
    def runtimes(self) -> Runtimes:
        """The network made fast on the run's device.

        Raises:
            UsageError: the runtime is onnx, and a package is missing, or the device is no CPU.
            ExportError: the runtime is onnx, and onnxruntime cannot run the network.
        """
        return Runtimes(self._trained, self.where, self.runtime)

    # -- scores -------------------------------------------------------------------------------

    def labelled(self, folder: Path) -> LabelledImages:
        """Images in ``folder``, which has one folder per class of the run.

        Raises:
            DataError: there are none, or a folder is named like no class.
        """
        return open_labelled(folder, self.settings.data, self.classes)

    def _score_folder(self, folder: Path) -> Scores:
        """Scores of images that are no split; they are not kept.

        Raises:
            DataError: they are missing or unreadable, or a folder is named like no class.
        """
        images = open_labelled(
            folder, self.settings.data, self.classes, skip_bad=self.settings.data.skip_bad
        )
        if images.skipped:
            self.note(f"{folder}: {len(images.skipped)} images that cannot be read are left out")
        images.source.refuse_bad(
            decode=False, hint="mend or remove them; a run with data.skip_bad leaves them out"
        )
        meta = {**self._fingerprints("images", images.sha256), "images": str(folder)}
        return self._scored(images.batches, meta)

    def _collect(self, split: HeldOut) -> Scores:
        """Scores of a split, collected now and kept.

        Raises:
            DataError: its images are missing, or others; it is empty.
        """
        data = self.data(split)
        meta = self._fingerprints(split, data.splits[split].sha256)
        scores = self._scored(partial(data.evaluation_batches, split), meta)
        try:
            write_scores(self._scores_path(split), scores)
        except OSError as problem:
            self.note(f"{self._scores_path(split)}: not kept ({problem.strerror})")
        return scores

    def _scored(
        self, batches: Callable[..., Iterable[tuple[Tensor, Tensor]]], meta: Mapping[str, str]
    ) -> Scores:
        """What the network says about all images of ``batches``."""
        net = self.network().to(self.where)
        channels_last = use_channels_last(self.settings.training.channels_last, self.where)
        if channels_last:
            net = net.to(memory_format=torch.channels_last)
        found = batches(
            batch_size=self.images_per_pass, device=self.where, channels_last=channels_last
        )
        return collect(net, found, self.costs, meta)
