"""Accuracy of every exit on a held-out split while training; holds no scores, so any size fits."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from hdkd_cli.data import Batch, ImageData
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.models.modes import evaluating
from hdkd_cli.training.distributed import Ranks
from hdkd_cli.training.state import TrainState


def on_val(state: TrainState, data: ImageData) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """``accuracy_and_nll`` of the network in training, with the buffers that are saved."""
    state.ranks.broadcast(state.net.buffers())
    batches = data.evaluation_batches(
        "val",
        batch_size=state.settings.evaluation.batch_size,
        device=state.device,
        channels_last=state.channels_last,
        share=state.share,
    )
    return accuracy_and_nll(state.net, batches, state.ranks)


@torch.inference_mode()
def accuracy_and_nll(
    net: MultiExitNet, batches: Iterable[Batch], ranks: Ranks
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-exit top-1 accuracy in % and mean NLL in nats, in evaluation mode and float32.

    Over the batches of all ranks, which hold the same parameters and buffers.
    """
    device = next(net.parameters()).device
    correct_K = torch.zeros(net.num_exits, dtype=torch.int64, device=device)
    nll_K = torch.zeros(net.num_exits, dtype=torch.float64, device=device)
    samples = torch.zeros((), dtype=torch.int64, device=device)
    with evaluating(net):
        for images, labels_B in batches:
            logits_KBC = net(images).float()
            correct_K += (logits_KBC.argmax(-1) == labels_B).sum(1)
            index_KB1 = labels_B.expand(net.num_exits, -1).unsqueeze(-1)
            nll_K -= logits_KBC.log_softmax(-1).gather(-1, index_KB1).sum((1, 2))
            samples += len(labels_B)
    for sums in (correct_K, nll_K, samples):
        ranks.total(sums)
    return (
        tuple((100.0 * correct_K / samples).tolist()),
        tuple((nll_K / samples).tolist()),
    )
