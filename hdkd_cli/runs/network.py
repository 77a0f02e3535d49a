"""From settings to a network, and from a checkpoint to its parameters."""

from __future__ import annotations

import torch

from hdkd_cli.errors import CheckpointError, RunError
from hdkd_cli.models.build import build_model
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.runs.checkpoints import Checkpoint
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.settings.schema import Settings


def initial_network(settings: Settings, *, num_classes: int) -> MultiExitNet:
    """The untrained network of a run, on the CPU; leaves the global random state as found.

    Raises:
        SettingsError: the network cannot be built.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.training.seed)
        return build_model(
            settings.model,
            num_classes=num_classes,
            image_size=settings.data.image_size,
            gradient_equilibrium=settings.objective.gradient_equilibrium,
        )


def load_network(net: MultiExitNet, checkpoint: Checkpoint) -> None:
    """Load parameters and buffers into ``net``.

    Raises:
        CheckpointError: damaged, or of another architecture.
    """
    tensors, metadata = checkpoint.tensors("model")
    theirs, ours = metadata.get("architecture"), net.architecture()
    if theirs != ours:
        raise CheckpointError(
            f"{checkpoint.path}: holds another network\n"
            f"  checkpoint: {theirs}\n  settings:   {ours}"
        )
    try:
        net.load_state_dict(tensors)
    except RuntimeError as problem:
        raise CheckpointError(f"{checkpoint.path}: {problem}") from None


def trained_network(run: RunFolder) -> MultiExitNet:
    """The network of a run with the parameters of its checkpoint, on the CPU, in evaluation mode.

    Raises:
        RunError: the run never began to train.
        CheckpointError: there is no usable checkpoint.
    """
    classes = run.info().classes
    if not classes:
        raise RunError(f"{run.path}: never began to train (run.json names no classes)")
    net = initial_network(run.settings(), num_classes=len(classes))
    load_network(net, run.checkpoint())
    return net.eval()
