"""Leaving early: a batch goes through the stages and shrinks as its samples leave.

Stages compute in torch, on any device. What their heads say comes to the CPU as numpy arrays, and
is read there by what evaluation reads scores by.

Shapes: K exits, B samples of a batch, C classes, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdkd_cli.errors import ScoresError
from hdkd_cli.evaluation.compatibility import check_exits
from hdkd_cli.evaluation.confidence import confidence
from hdkd_cli.evaluation.measures import combine
from hdkd_cli.evaluation.policy import ExitPolicy, OperatingPoint
from hdkd_cli.evaluation.simulate import threshold_array
from hdkd_cli.models.contract import MultiExitNet, State, narrow

Numbers = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Exited:
    """How samples left, in the order in which they came.

    Attributes:
        prediction_B: Class.
        exit_B: Exit, 0-based.
        confidence_B: Confidence there.
        logits_BC: What that exit said, combined and divided by its temperature; None: not kept.
    """

    prediction_B: Numbers
    exit_B: Numbers
    confidence_B: Floats
    logits_BC: Floats | None = None

    @classmethod
    def nobody_yet(cls, samples: int, classes: int | None = None) -> Exited:
        """Room for ``samples`` that have not left: their exit is −1.

        Args:
            samples: How many.
            classes: C, to keep their logits; None: they are not kept.
        """
        return cls(
            np.zeros(samples, np.int64),
            np.full(samples, -1, np.int64),
            np.zeros(samples, np.float32),
            None if classes is None else np.zeros((samples, classes), np.float32),
        )

    @classmethod
    def of(cls, parts: Sequence[Leaving]) -> Exited:
        """All samples of a batch, group by group as they left."""
        if len(parts) == 1:  # the groups keep the order of the batch
            (one,) = parts
            exit_B = np.full(len(one.place_B), one.exit)
            return cls(one.prediction_B, exit_B, one.confidence_B, one.logits_BC)
        samples = sum(len(left.place_B) for left in parts)
        logits_BC = parts[0].logits_BC
        exited = cls.nobody_yet(samples, None if logits_BC is None else logits_BC.shape[-1])
        for left in parts:
            exited.put(left)
        return exited

    def put(self, left: Leaving) -> None:
        """Note the samples that left."""
        self.prediction_B[left.place_B] = left.prediction_B
        self.exit_B[left.place_B] = left.exit
        self.confidence_B[left.place_B] = left.confidence_B
        if self.logits_BC is not None and left.logits_BC is not None:
            self.logits_BC[left.place_B] = left.logits_BC

    def refuse_nan(self) -> None:
        """See that every answer is one.

        Raises:
            ScoresError: the network said NaN.
        """
        bad_B = np.isnan(self.confidence_B)
        if bad_B.any():
            exits = sorted({k + 1 for k in self.exit_B[bad_B].tolist()})
            raise ScoresError(
                f"exit {', '.join(map(str, exits))}: the logits of {int(bad_B.sum())} of "
                f"{len(bad_B)} images are NaN or infinite: this network did not train"
            )


class Group(NamedTuple):
    """Samples on their way, all before the same stage."""

    place_B: Numbers
    """Which samples of the input they are."""
    state: State
    logits: dict[int, Floats]
    """Exit → logits (B, C), as far as a later exit still reads them."""


class Leaving(NamedTuple):
    """Samples that leave at an exit."""

    exit: int
    place_B: Numbers
    prediction_B: Numbers
    confidence_B: Floats
    logits_BC: Floats | None

    def only(self, index_B: Numbers) -> Leaving:
        """Some of them."""
        return Leaving(
            self.exit,
            self.place_B[index_B],
            self.prediction_B[index_B],
            self.confidence_B[index_B],
            None if self.logits_BC is None else self.logits_BC[index_B],
        )


class Walk:
    """One stage at a time: which heads must run, which samples leave, and the state of the others.

    A head runs only if its logits have a weight at this exit or a later one that is used. (Costs
    count all heads up to an exit, as their convention says, whether or not they were needed.)

    Args:
        net: The network; it is put into evaluation mode.
        policy: How logits are combined, and what confidence is.
        point: The thresholds.
        keep_logits: Hand out what the exits said, too.

    Raises:
        PolicyError: the policy is for another number of exits.
    """

    def __init__(
        self,
        net: MultiExitNet,
        policy: ExitPolicy,
        point: OperatingPoint,
        *,
        keep_logits: bool = False,
    ) -> None:
        check_exits(policy, net.num_exits)
        self.run_in(net)
        self.policy = policy
        self.keep_logits = keep_logits
        # The last exit takes all samples: no confidence is below 0.
        self.threshold_K: list[float] = [*threshold_array([point])[0].tolist(), 0.0]
        weights = policy.combination.weights
        used = [k for k, threshold in enumerate(self.threshold_K) if threshold < np.inf]

        def read_by(exits: list[int]) -> set[int]:
            return {j for i in exits for j, weight in enumerate(weights[i]) if weight}

        self.heads = read_by(used)
        self.read_later_K = [read_by([i for i in used if i > k]) for k in range(net.num_exits)]

    def run_in(self, net: MultiExitNet) -> None:
        """Run the stages of ``net`` from now on: the same network, maybe in another runtime."""
        self.net = net.eval()
        self._stages = list(net.stages)

    def begin(self, images_BCHW: Tensor, place_B: Numbers) -> Group:
        """Samples before the first stage."""
        return Group(place_B, self.net.start(images_BCHW), {})

    def advance(self, k: int, group: Group) -> tuple[Leaving | None, Group | None]:
        """Take samples through stage ``k``: (those that leave there, those that go on)."""
        stage, logits = self._stages[k], group.logits
        if k in self.heads:
            state, said_BC = stage.both(group.state)
            logits = logits | {k: said_BC.float().numpy(force=True)}
        else:
            state = stage.body(group.state)
        kept = {j: logits_BC for j, logits_BC in logits.items() if j in self.read_later_K[k]}
        going = Group(group.place_B, state, kept)
        if self.threshold_K[k] == np.inf:
            return None, going
        combined_BC = self._combined(k, logits)
        confidence_B = confidence(combined_BC, self.policy.confidence)
        kept_BC = combined_BC if self.keep_logits else None
        if k == len(self._stages) - 1:
            return Leaving(k, group.place_B, combined_BC.argmax(-1), confidence_B, kept_BC), None
        # NaN is below no threshold, so it leaves here, and `refuse_nan` sees it.
        stays_B = confidence_B < self.threshold_K[k]
        staying = np.count_nonzero(stays_B)
        if staying == len(stays_B):
            return None, going
        left = Leaving(k, group.place_B, combined_BC.argmax(-1), confidence_B, kept_BC)
        if staying == 0:
            return left, None
        return left.only(np.flatnonzero(~stays_B)), _narrowed(going, np.flatnonzero(stays_B))

    def _combined(self, k: int, logits: dict[int, Floats]) -> Floats:
        """What exit ``k`` says; logits that were not kept have no weight there."""
        seen = [logits.get(j) for j in range(k + 1)]
        return combine(seen, self.policy.combination.weights[k], self.policy.temperatures[k])


def _narrowed(group: Group, index_B: Numbers) -> Group:
    """Some samples of a group."""
    device = next(iter(group.state.values())).device
    state = narrow(group.state, torch.from_numpy(index_B).to(device))
    logits = {j: logits_BC[index_B] for j, logits_BC in group.logits.items()}
    return Group(group.place_B[index_B], state, logits)


class EarlyExit:
    """A network that answers as soon as its policy lets it.

    The same prediction at the same exit as `evaluation.simulate` finds on the scores of all exits,
    up to rounding where a confidence meets its threshold.

    Args:
        net: The network; it is put into evaluation mode.
        policy: When to leave.
        point: One of its operating points; None: the one of highest validation accuracy.
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
        keep_logits: bool = False,
    ) -> None:
        self._walk = Walk(net, policy, point or policy.select(), keep_logits=keep_logits)

    def go_on_with(self, net: MultiExitNet) -> None:
        """Run the same stages in another runtime from now on."""
        self._walk.run_in(net)

    def __call__(self, images_BCHW: Tensor) -> Exited:
        """Classify a batch. No stage sees a sample that has left.

        Raises:
            ScoresError: the network's logits are not finite.
        """
        with torch.inference_mode():
            parts = []
            group: Group | None = self._walk.begin(images_BCHW, np.arange(len(images_BCHW)))
            for k in range(len(self._walk.threshold_K)):
                if group is None:
                    break
                left, group = self._walk.advance(k, group)
                if left is not None:
                    parts.append(left)
            exited = Exited.of(parts)
            exited.refuse_nan()
        return exited
