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
from torch import Tensor

from hdkd_cli.devices import cpu_count
from hdkd_cli.errors import DataError
from hdkd_cli.evaluation.measures import softmax
from hdkd_cli.evaluation.operating_point import everybody_stays
from hdkd_cli.evaluation.policy import ExitPolicy, OperatingPoint
from hdkd_cli.evaluation.watch import Watch
from hdkd_cli.inference.any_image import AnyImage, Transform
from hdkd_cli.inference.arriving import batches_of
from hdkd_cli.inference.early_exit import EarlyExit, Exited, Floats
from hdkd_cli.inference.runtime import Runtimes
from hdkd_cli.inference.stream import Regrouped
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.records.prediction import Audited, ClassProbability, Prediction

THREADS = 8
"""Image files are decoded by at most so many threads."""


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
