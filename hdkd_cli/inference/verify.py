"""What was exported is run and compared with the network.

K exits, B samples of a batch, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from hdkd_cli.errors import ExportError
from hdkd_cli.evaluation.confidence import confidence
from hdkd_cli.evaluation.measures import combine
from hdkd_cli.evaluation.policy import ExitPolicy
from hdkd_cli.evaluation.simulate import threshold_array
from hdkd_cli.inference.exported_network import Network
from hdkd_cli.inference.programs import TOLERANCE, Program, states_for
from hdkd_cli.models.contract import MultiExitNet


def verify_stages(exported: Network, net: MultiExitNet, programs: Sequence[Program]) -> None:
    """Compare what was written with the stages, each on the true state, at two batch sizes.

    Raises:
        ExportError: they differ by more than ``TOLERANCE``.
    """
    for batch in (1, 3):
        states = states_for(net, batch)
        for k, (program, stage) in enumerate(zip(programs, net.stages, strict=True)):
            with torch.no_grad():
                state = stage.body(states[k])
                wanted = [stage.head(state), *(state[name] for name in program.writes)]
            found = exported.program_K[k]([states[k][name].numpy() for name in program.reads])
            for name, ours, theirs in zip(program.outputs, wanted, found, strict=True):
                _see_that_alike(
                    f"stage {k + 1}: the exported program's {name}", ours.numpy(), theirs
                )


def verify_single_file(exported: Network, net: MultiExitNet, policy: ExitPolicy) -> None:
    """Compare what was written with the network, at thresholds by which noise leaves everywhere.

    Args:
        exported: The single file.
        net: What it was made of.
        policy: How its exits are read, and its own thresholds.

    Raises:
        ExportError: an image leaves elsewhere, or an answer differs by more than ``TOLERANCE``.
    """
    for batch in (1, 4):
        images = states_for(net, batch)[0]["image"]
        with torch.no_grad():
            seen = list(net(images).numpy())
        combined = [
            combine(seen[: k + 1], weights, temperature)
            for k, (weights, temperature) in enumerate(
                zip(policy.combination.weights, policy.temperatures, strict=True)
            )
        ]
        sure = [confidence(logits_BC, policy.confidence) for logits_BC in combined]
        for thresholds in _to_try(policy, sure):
            _compare(exported, images.numpy(), thresholds, combined, sure)


def _to_try(
    policy: ExitPolicy, sure_KB: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """Thresholds: none, so the policy's; for each exit those by which all leave there; the
    policy's, given; and some that the surest image of a batch alone reaches."""
    last = len(sure_KB) - 1
    at_one = np.full((last + 1, last), np.inf, np.float32)
    at_one[np.arange(last), np.arange(last)] = 0
    some = np.array([np.sort(sure_B)[-2:].mean() for sure_B in sure_KB[:last]], "f4")
    return [np.empty(0, np.float32), *at_one, threshold_array(policy.points)[0], some]


def _compare(
    exported: Network,
    images: NDArray[np.float32],
    thresholds: NDArray[np.float32],
    combined: Sequence[NDArray[np.float32]],
    sure: Sequence[NDArray[np.float32]],
) -> None:
    """See that each image left at an exit that was sure enough of it, and none before was."""
    used = thresholds if len(thresholds) else np.array(exported.thresholds_K, np.float32)
    names = exported.manifest["programs"][0]["outputs"]
    found = dict(zip(names, exported.program_K[0]([images, thresholds]), strict=True))
    for b, exit in enumerate(found["exit"].tolist()):
        at = exit - 1
        right = 1 <= exit <= len(sure)
        right = right and all(float(sure[k][b]) < used[k] + TOLERANCE for k in range(at))
        right = right and (at == len(used) or float(sure[at][b]) >= used[at] - TOLERANCE)
        if not right:
            raise ExportError(f"the single file: an image leaves at exit {exit}, which is wrong")
        for name, ours in (("logits", combined[at][b]), ("confidence", sure[at][b])):
            _see_that_alike(f"the single file: {name} at exit {exit}", ours, found[name][b])
        if found["prediction"][b] != found["logits"][b].argmax():
            raise ExportError(f"the single file: exit {exit} predicts what its logits do not say")


def _see_that_alike(what: str, ours: ArrayLike, theirs: ArrayLike) -> None:
    gap = np.abs(np.subtract(ours, theirs)) / np.maximum(np.abs(ours), 1)
    if not gap.max() <= TOLERANCE:  # NaN is a difference too
        raise ExportError(
            f"{what} differs by {float(gap.max()):.2g} from the network's, {TOLERANCE:g} is allowed"
        )
