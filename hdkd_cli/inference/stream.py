"""Throughput mode: samples wait before each stage until a full batch is there.

Shapes: B samples of a batch, C classes, H W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hdkd_cli.evaluation.policy import ExitPolicy, OperatingPoint
from hdkd_cli.inference.early_exit import Exited, Group, Walk
from hdkd_cli.models.contract import MultiExitNet


class Regrouped:
    """Early exit on a stream: no stage runs on the remains of a batch before the stream ends.

    At most a batch waits before each stage. Answers come in the order of the images, so one that
    waits holds back those behind it.

    Args:
        net: The network; it is put into evaluation mode.
        policy: When to leave.
        point: One of its operating points; None: the one of highest validation accuracy.
        batch_size: Samples per pass of a stage.
        keep_logits: Hand out what the exits said, too.

    Raises:
        PolicyError: the policy is for another number of exits.
    """

    def __init__(
        self,
        net: MultiExitNet,
        policy: ExitPolicy,
        point: OperatingPoint | None = None,
        *,
        batch_size: int,
        keep_logits: bool = False,
    ) -> None:
        assert batch_size >= 1
        self._walk = Walk(net, policy, point or policy.select(), keep_logits=keep_logits)
        self._classes = net.num_classes if keep_logits else None
        self._batch_size = batch_size
        self._waiting: list[list[Group]] = [[] for _ in range(net.num_exits)]
        self._delivered = 0
        self._open: Exited | None = None  # of the images from ``_delivered`` on

    def go_on_with(self, net: MultiExitNet) -> None:
        """Run the same stages in another runtime from now on; states are the same in all."""
        self._walk.run_in(net)

    def feed(self, images_BCHW: Tensor) -> Exited:
        """Take in images, any number; return the answers that are next in order, maybe none.

        Raises:
            ScoresError: the network's logits are not finite.
        """
        with torch.inference_mode():
            fresh = Exited.nobody_yet(len(images_BCHW), self._classes)
            self._open = fresh if self._open is None else _joined(self._open, fresh)
            end = self._delivered + len(self._open.exit_B)
            place = end - len(images_BCHW)
            for images in torch.split(images_BCHW, self._batch_size):
                places_B = np.arange(place, place + len(images))
                self._waiting[0].append(self._walk.begin(images, places_B))
                place += len(images)
                # The deepest first: then nothing piles up.
                while full := [k for k in self._stages() if self._count(k) >= self._batch_size]:
                    self._run(full[-1])
            return self._deliver()

    def flush(self) -> Exited:
        """Take everything that waits to its exit; return all answers that are left.

        Raises:
            ScoresError: the network's logits are not finite.
        """
        with torch.inference_mode():
            for k in self._stages():
                while self._waiting[k]:
                    self._run(k)
            return self._deliver()

    def _stages(self) -> range:
        return range(len(self._waiting))

    def _count(self, k: int) -> int:
        """Samples that wait before stage ``k``."""
        return sum(len(group.place_B) for group in self._waiting[k])

    def _run(self, k: int) -> None:
        """Run stage ``k`` on a batch of those that wait for it, the earliest first."""
        group, self._waiting[k] = _taken(self._waiting[k], self._batch_size)
        left, going = self._walk.advance(k, group)
        if left is not None:
            assert self._open is not None
            self._open.put(left._replace(place_B=left.place_B - self._delivered))
        if going is not None:
            self._waiting[k + 1].append(going)

    def _deliver(self) -> Exited:
        """The answers from the first image on that has not got one handed out yet."""
        if self._open is None:
            return Exited.nobody_yet(0, self._classes)
        count = int(np.logical_and.accumulate(self._open.exit_B >= 0).sum())
        ready, self._open = _part(self._open, slice(count)), _part(self._open, slice(count, None))
        self._delivered += count
        ready.refuse_nan()
        return ready


def _taken(groups: list[Group], count: int) -> tuple[Group, list[Group]]:
    """The first ``count`` samples of ``groups``, and the others."""
    whole = groups[0]
    if len(groups) > 1:
        whole = Group(
            np.concatenate([group.place_B for group in groups]),
            {key: torch.cat([group.state[key] for group in groups]) for key in whole.state},
            {j: np.concatenate([group.logits[j] for group in groups]) for j in whole.logits},
        )
    if len(whole.place_B) <= count:
        return whole, []
    return _slice(whole, slice(count)), [_slice(whole, slice(count, None))]


def _slice(group: Group, part: slice) -> Group:
    return Group(
        group.place_B[part],
        {key: tensor[part] for key, tensor in group.state.items()},
        {j: logits_BC[part] for j, logits_BC in group.logits.items()},
    )


def _joined(a: Exited, b: Exited) -> Exited:
    return Exited(
        np.concatenate([a.prediction_B, b.prediction_B]),
        np.concatenate([a.exit_B, b.exit_B]),
        np.concatenate([a.confidence_B, b.confidence_B]),
        None
        if a.logits_BC is None or b.logits_BC is None
        else np.concatenate([a.logits_BC, b.logits_BC]),
    )


def _part(exited: Exited, part: slice) -> Exited:
    return Exited(
        exited.prediction_B[part],
        exited.exit_B[part],
        exited.confidence_B[part],
        None if exited.logits_BC is None else exited.logits_BC[part],
    )
