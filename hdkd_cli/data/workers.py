"""Large images: decoded and augmented by worker processes, one image at a time.

The workers send uint8, so that normalisation happens on the training device with the same
arithmetic as everywhere. Shape suffixes: B batch, S pixels per side, 3 colours.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hdkd_cli.data.order import Batch, Request, derived_seed
from hdkd_cli.data.sources.base import FolderSource, Source
from hdkd_cli.data.transform import Normalise, frame, to_pixels
from hdkd_cli.devices import cpu_count
from hdkd_cli.errors import DataError
from hdkd_cli.settings.data import DataSettings


class LoadedImages:
    """Batches decoded as they are needed."""

    def __init__(self, source: Source, settings: DataSettings) -> None:
        self.source = source
        self.settings = settings

    def make_ready(self, device: torch.device) -> None:  # noqa: ARG002
        """Find images that cannot be read before training comes to them.

        Raises:
            DataError: there are some; all of them are named.
        """
        if isinstance(self.source, FolderSource):
            self.source.refuse_bad(decode=self.settings.check == "decode")

    def batches(
        self,
        requests: Iterable[Request],
        *,
        augment: bool,
        device: torch.device,
        channels_last: bool,
    ) -> Iterator[Batch]:
        """One batch per request. Augmentation depends on (seed, epoch, image) alone.

        Raises:
            DataError: an image cannot be read.
        """
        decoded = decode(
            self.source,
            self.settings,
            requests,
            augment=augment,
            workers=self.settings.workers,
            pin_memory=device.type == "cuda",
        )
        normalise = Normalise(self.settings, device)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        for parts in decoded:
            pixels_B3SS, labels_B = (part.to(device, non_blocking=True) for part in parts)
            yield Batch(normalise(pixels_B3SS.contiguous(memory_format=layout)), labels_B)


def decode(
    source: Source,
    settings: DataSettings,
    requests: Iterable[Request],
    *,
    augment: bool,
    workers: int,
    pin_memory: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield uint8 pixels (B, 3, S, S) and labels (B,) of each request, on the CPU.

    Up to ``workers`` processes, never more than there are cores, do the work; they end with the
    iterator.

    Raises:
        DataError: an image cannot be read.
    """
    loader = DataLoader(
        _Decoder(source, settings, augment=augment),
        batch_size=None,  # an item of the data set is a whole batch
        sampler=_Listed(requests),
        num_workers=min(workers, cpu_count()),
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else an iterator moves the global random state
    )
    with _interrupts_held(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        iterator = iter(loader)
    try:
        with killed_workers_told():
            for item in iterator:
                if isinstance(item, DataError):
                    raise item
                pixels_B3SS, labels_B = item
                yield pixels_B3SS, labels_B
    except (EOFError, ConnectionError, FileNotFoundError) as problem:
        raise _killed(problem) from None  # its pixels were still to be fetched from it
    finally:
        _end_workers(iterator)


def _end_workers(iterator: object) -> None:
    """End the processes of a DataLoader's iterator now, not when the last traceback is forgotten.

    One may hang, as another was killed while it held what both need. PyTorch sends it SIGTERM,
    which it does not hear (see `_interrupts_held`); Python would wait for it forever at the end.
    """
    shut_down = getattr(iterator, "_shutdown_workers", None)  # there is none without processes
    if shut_down is None:
        return
    shut_down()
    for worker in getattr(iterator, "_workers", ()):
        if worker.is_alive():
            worker.kill()
            worker.join()


@contextmanager
def killed_workers_told() -> Iterator[None]:
    """A decoding process that was killed is no bug of this program.

    PyTorch tells of it by an exception wherever the main thread is when the news comes, so
    training as a whole runs inside too.

    Raises:
        DataError: one was.
    """
    try:
        yield
    except RuntimeError as problem:
        if not str(problem).startswith("DataLoader worker"):
            raise
        raise _killed(problem) from None


def _killed(problem: Exception) -> DataError:
    return DataError(
        f"a process that decodes images was killed ({str(problem) or type(problem).__name__})",
        hint="out of memory? Fewer processes need less: --set data.workers=1",
    )


class _Wanted(NamedTuple):
    """A request without tensors, which are costly to send to another process."""

    indices: list[int]
    seed: int
    epoch: int


class _Listed:
    """The sampler: requests, ready to be sent."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self.requests = requests

    def __iter__(self) -> Iterator[_Wanted]:
        for request in self.requests:
            indices_B = request.indices_B[request.part]
            yield _Wanted(indices_B.tolist(), request.seed, request.epoch)


class _Decoder(Dataset[object]):
    """Decodes, transforms and stacks the images of a request."""

    def __init__(self, source: Source, settings: DataSettings, *, augment: bool) -> None:
        self.source = source
        self.settings = settings
        self.augmentations = _augmentations(settings) if augment else []

    def __getitem__(self, wanted: _Wanted) -> tuple[Tensor, Tensor] | DataError:
        try:
            pixels = [self._pixels(index, wanted) for index in wanted.indices]
        except DataError as problem:
            return problem  # raised here, it would arrive wrapped in a worker's traceback
        return torch.stack(pixels), self.source.labels_N[wanted.indices]

    def _pixels(self, index: int, wanted: _Wanted) -> Tensor:
        image = self.source.image(index)
        if not self.augmentations:
            return to_pixels(frame(image, self.settings))
        if self.settings.augment != "resized-crop":
            image = frame(image, self.settings)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(
                derived_seed(wanted.seed, "augment", wanted.epoch, index)
            )
            for step in self.augmentations:
                image = step(image)
        return to_pixels(image)


def _augmentations(settings: DataSettings) -> list[Callable[[Image.Image], Image.Image]]:
    """Training transforms, in turn; they draw from torch's global CPU generator."""
    from torchvision.transforms import v2

    steps: list[Callable[[Image.Image], Image.Image]] = []
    if settings.augment == "pad-crop":
        steps.append(v2.RandomCrop(settings.image_size, padding=settings.padding))
    elif settings.augment == "resized-crop":
        interpolation = v2.InterpolationMode(settings.interpolation)
        steps.append(v2.RandomResizedCrop(settings.image_size, interpolation=interpolation))
    if settings.flip:
        steps.append(v2.RandomHorizontalFlip())
    if settings.rand_augment:
        steps.append(v2.RandAugment(settings.rand_augment, settings.rand_magnitude))
    return steps


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes started inside never see Ctrl-C or SIGTERM, which terminals and job managers send
    to all processes but which are their parent's business: they end with it. One that comes
    meanwhile reaches the parent afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
