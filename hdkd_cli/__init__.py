"""hdkd: train, calibrate and deploy image classifiers with several exits.

    import hdkd_cli

    net, policy, settings = hdkd_cli.load("runs/digits-s0-20260101T000000Z")
    logits_KBC = net(images_BCHW)

Importing this package loads no torch; ``load`` does.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hdkd_cli.evaluation.policy import ExitPolicy
    from hdkd_cli.models.contract import MultiExitNet
    from hdkd_cli.settings.schema import Settings

__all__ = ["LoadedRun", "load"]


class LoadedRun(NamedTuple):
    """What a run left behind.

    Attributes:
        net: The trained network, on the CPU, in evaluation mode: images (B,3,H,W), normalised as
            ``settings.data`` says → logits (K,B,C).
        policy: The exit policy calibrated last; None if there is none yet.
        settings: What the run was made with.
    """

    net: MultiExitNet
    policy: ExitPolicy | None
    settings: Settings


def load(run: str | PathLike[str], *, trust_code: bool = False) -> LoadedRun:
    """Open a run folder, or one checkpoint in it (``RUN/checkpoints/step-100``).

    Args:
        run: The folder.
        trust_code: Import the code that the run's settings name.

    Raises:
        UsageError: the run names code that is not trusted.
        RunError: there is no run at that path.
        CheckpointError: it has no usable checkpoint.
        PolicyError: its policy is damaged.
    """
    from hdkd_cli.evaluation.policy import read_policy
    from hdkd_cli.runs.folder import RunFolder
    from hdkd_cli.runs.network import trained_network
    from hdkd_cli.settings.keys import leaves
    from hdkd_cli.settings.trust import trust_factories

    folder = RunFolder.open(Path(run))
    if trust_code:
        trust_factories(leaves(folder.settings()).values())
    last = folder.policies / "last"
    policy = read_policy(last) if last.exists() else None
    return LoadedRun(trained_network(folder), policy, folder.settings())
