"""Images of any kind in, predictions out: the same transform and the same exits everywhere.

B images of a batch, C classes, K exits, H W pixels.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hdkd_cli.data.pictures import to_rgb
from hdkd_cli.data.transform import Normalise, frame, read_image, to_pixels
from hdkd_cli.devices import cpu_count
from hdkd_cli.errors import DataError
from hdkd_cli.evaluation.measures import softmax
from hdkd_cli.evaluation.operating_point import everybody_stays
from hdkd_cli.evaluation.policy import ExitPolicy, OperatingPoint
from hdkd_cli.evaluation.watch import Watch
from hdkd_cli.inference.arriving import batches_of
from hdkd_cli.inference.early_exit import EarlyExit, Exited, Floats
from hdkd_cli.inference.runtime import Runtimes
from hdkd_cli.inference.stream import Regrouped
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.records.prediction import Audited, ClassProbability, Prediction
from hdkd_cli.settings.data import DataSettings

AnyImage = str | Path | Image.Image | Tensor
"""A path; a Pillow image; a tensor (3, H, W) or (1, H, W) of any size, uint8, or floating point
from 0 to 1."""

THREADS = 8
"""Image files are decoded by at most so many threads."""


class Transform:
    """An image as evaluation sees it.

    Args:
        settings: Size, mean and standard deviation.
    """

    def __init__(self, settings: DataSettings) -> None:
        self.settings = settings

    def __repr__(self) -> str:
        return f"Transform({self.settings.shorter_side} -> {self.settings.image_size} pixels)"

    def pixels(self, image: AnyImage) -> Tensor:
        """The part of an image that the network sees: uint8 (3, H, W).

        Raises:
            DataError: it cannot be read, or is no image.
        """
        if isinstance(image, str | Path):
            rgb = read_image(Path(image))
        else:
            rgb = to_rgb(_of_tensor(image) if isinstance(image, Tensor) else image)
        return to_pixels(frame(rgb, self.settings))

    def __call__(self, image: AnyImage) -> Tensor:
        """What the network takes: float32 (3, H, W), normalised, on the CPU.

        Raises:
            DataError: it cannot be read, or is no image.
        """
        return self.normalised(self.pixels(image), torch.device("cpu"))

    def normalised(self, pixels: Tensor, device: torch.device) -> Tensor:
        """uint8 (..., 3, H, W) → float32, normalised, on ``device``."""
        return Normalise(self.settings, device)(pixels.to(device))


def _of_tensor(image: Tensor) -> Image.Image:
    """A tensor as a Pillow image. Floating point is rounded to 8 bits, as image files hold it."""
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise DataError(
            f"a tensor of shape {tuple(image.shape)} is no image",
            hint="give (3, H, W) or (1, H, W), or a batch (B, 3, H, W)",
        )
    if image.is_floating_point():
        if not bool(((image >= 0) & (image <= 1)).all()):
            raise DataError(
                "pixels in floating point lie from 0 to 1",
                hint="give images as they are: they are normalised here",
            )
        image = (image * 255).round().to(torch.uint8)
    if image.dtype != torch.uint8:
        raise DataError(f"pixels are {image.dtype}, uint8 or floating point is needed")
    pixels_HW3 = image.expand(3, -1, -1).permute(1, 2, 0).cpu().contiguous()
    return Image.fromarray(pixels_HW3.numpy())


def listed(images: AnyImage | Sequence[AnyImage] | Tensor) -> list[AnyImage]:
    """One image, several, or a batch (B, 3, H, W), as a list."""
    if isinstance(images, Tensor) and images.ndim == 4:
        return list(images)
    if isinstance(images, str | Path | Image.Image | Tensor):
        return [images]
    return list(images)


class Predictor:
    """A network that classifies images under one operating point.

    Args:
        runtimes: The network.
        policy: When to leave, and how exits are read.
        point: The operating point.
        transform: How images are prepared.
        classes: Class names.
        macs_K: Cost of each exit.
        batch_size: Images per forward pass.
        regroup: Let samples wait before each stage until a full batch is there.
        top: How many of the most probable classes a prediction lists.
        watch: Decides which images go to the last exit besides, and hears what it says.
        note: Told once which runtime ``auto`` goes on with.

    Attributes:
        done: Predictions so far.
    """

    def __init__(
        self,
        runtimes: Runtimes,
        policy: ExitPolicy,
        point: OperatingPoint,
        *,
        transform: Transform,
        classes: Sequence[str],
        macs_K: Sequence[int],
        batch_size: int,
        regroup: bool = False,
        top: int = 0,
        watch: Watch | None = None,
        note: Callable[[str], object],
    ) -> None:
        self._runtimes, self._note = runtimes, note
        net = runtimes.net
        self.transform, self.classes, self.macs_K = transform, classes, macs_K
        self.batch_size = batch_size
        self.top = min(top, len(classes))
        self.device = runtimes.device
        keep = self.top > 0
        self._policy, self._point = policy, point
        self._early = EarlyExit(net, policy, point, keep_logits=keep)
        self._stream = (
            Regrouped(net, policy, point, batch_size=batch_size, keep_logits=keep)
            if regroup
            else None
        )
        self.watch = watch
        self._last = EarlyExit(net, policy, everybody_stays(policy))
        self._audited: dict[int, int] = {}  # number of an image → what the last exit says
        self._taken = 0
        self.done = 0
        self._exits: Counter[int] = Counter()
        self._began: float | None = None
        self._ended = 0.0

    def files(
        self, names: Iterable[str], refused: Callable[[DataError], object]
    ) -> Iterator[Prediction]:
        """Predictions for image files, in their order; those of a batch are out before the next one
        runs, and none waits longer than a second for further names.

        Args:
            names: Paths; the iterator may take its time.
            refused: Told of every file that cannot be read, in its turn.
        """
        waiting: list[str] = []
        threads = min(THREADS, cpu_count())
        batches = batches_of(
            names, self.transform.settings, self.batch_size, refused, threads=threads
        )
        for batch in batches:
            waiting.extend(arrived.name for arrived in batch)
            exited = self._answers([arrived.pixels for arrived in batch])
            yield from self._predictions(exited, waiting)
            del waiting[: sum(len(part.exit_B) for part in exited)]

    def images(self, images: Sequence[AnyImage]) -> Iterator[Prediction]:
        """Predictions for images, in their order.

        Raises:
            DataError: one cannot be read, or is no image.
        """
        for first in range(0, len(images), self.batch_size):
            batch = images[first : first + self.batch_size]
            names = [str(image) if isinstance(image, str | Path) else None for image in batch]
            exited = self._answers([self.transform.pixels(image) for image in batch])
            yield from self._predictions(exited, names)

    def _answers(self, pixels: list[Tensor]) -> list[Exited]:
        """Where images left, of those whose answer is due."""
        parts = []
        if pixels:
            self._began = self._began or time.monotonic()
            order = self._runtimes.memory_order
            pixels_B3HW = torch.stack(pixels).to(self.device).contiguous(memory_format=order)
            images = self.transform.normalised(pixels_B3HW, self.device)
            if self.watch is not None:
                self._audit(images, self.watch)
            began = time.perf_counter()
            parts.append(self._early(images) if self._stream is None else self._stream.feed(images))
            if self._runtimes.worked(time.perf_counter() - began):
                self._choose_runtime(images)
        if self._stream is not None and len(pixels) < self.batch_size:
            parts.append(self._stream.flush())
        return parts

    def _choose_runtime(self, images_BCHW: Tensor) -> None:
        """Go on in the runtime that is the faster one for images like these."""

        def run(net: MultiExitNet) -> Callable[[], object]:
            early = EarlyExit(net, self._policy, self._point)
            return lambda: early(images_BCHW)

        self._runtimes.decide(run, len(images_BCHW))
        for part in (self._early, self._last, self._stream):
            if part is not None:
                part.go_on_with(self._runtimes.net)
        self._note(f"runtime from here on: {self._runtimes.name} ({self._runtimes.reason})")

    def _audit(self, images_BCHW: Tensor, watch: Watch) -> None:
        """Some of the images go to the last exit, before anybody knows where they leave."""
        if len(drawn := watch.draw(len(images_BCHW))):
            place_B = torch.from_numpy(drawn).to(images_BCHW.device)
            label_B = self._last(images_BCHW[place_B]).prediction_B
            numbers = (self._taken + drawn).tolist()
            self._audited.update(zip(numbers, label_B.tolist(), strict=True))
        self._taken += len(images_BCHW)

    def _audits(self, part: Exited) -> list[Audited | None]:
        """What the last exit says of the images that are next, as far as it was asked."""
        labels = part.prediction_B.tolist()
        said = [
            self._audited.pop(number, None) for number in range(self.done, self.done + len(labels))
        ]
        audits = [
            None
            if last is None
            else Audited(label=last, class_name=self.classes[last], agrees=last == label)
            for label, last in zip(labels, said, strict=True)
        ]
        if self.watch is not None:
            agreed = [audit.agrees for audit in audits if audit is not None]
            self.watch.observe(part.exit_B.tolist(), agreed)
        return audits

    def _predictions(
        self, parts: Sequence[Exited], names: Sequence[str | None]
    ) -> Iterator[Prediction]:
        place = 0
        for part in parts:
            labels, exits = part.prediction_B.tolist(), part.exit_B.tolist()
            self._ended = time.monotonic()
            audits = self._audits(part)
            alarms = () if self.watch is None else self.watch.alarms
            for i, (label, k, confidence) in enumerate(
                zip(labels, exits, part.confidence_B.tolist(), strict=True)
            ):
                self.done += 1
                self._exits[k] += 1
                yield Prediction(
                    image=names[place],
                    label=label,
                    class_name=self.classes[label],
                    exit=k + 1,
                    confidence=confidence,
                    macs=self.macs_K[k],
                    top=self._most_probable(part.logits_BC, i),
                    audit=audits[i],
                    alarms=alarms,
                )
                place += 1

    def _most_probable(self, logits_BC: Floats | None, i: int) -> tuple[ClassProbability, ...]:
        if logits_BC is None:
            return ()
        p_C = softmax(logits_BC[i])
        label_T = np.argsort(-p_C, kind="stable")[: self.top]
        return tuple(
            ClassProbability(label=label, class_name=self.classes[label], probability=probability)
            for label, probability in zip(label_T.tolist(), p_C[label_T].tolist(), strict=True)
        )

    def summary(self) -> str:
        """How fast it was, in a sentence."""
        if not self.done or self._began is None:
            return "no images"
        mean_macs = sum(self.macs_K[k] * count for k, count in self._exits.items()) / self.done
        seconds = max(self._ended - self._began, 1e-9)
        return (
            f"{self.done:,} images, {self.done / seconds:,.1f} images/s, "
            f"{mean_macs / 1e6:.2f} M MACs per image, "
            f"{100 * mean_macs / self.macs_K[-1]:.1f} % of the full network"
        )
