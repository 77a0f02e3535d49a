"""Accuracy of every exit on a held-out split while training; holds no scores, so any size fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from hdkd_cli.data import Batch, ImageData
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.models.modes import evaluating
from hdkd_cli.training.distributed import Ranks
from hdkd_cli.training.state import TrainState

INVERSE_TEMPERATURES = tuple(1.1**power for power in range(-24, 25))
"""What ``refined_nll`` tries: temperatures from 0.1 to 10."""


def on_val(state: TrainState, data: ImageData) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """``accuracy_and_nll`` of the network in training, with the buffers that are saved."""
    return accuracy_and_nll(state.net, _val_batches(state, data), state.ranks)


def refined_on_val(state: TrainState, data: ImageData) -> tuple[float, ...]:
    """``refined_nll`` of the network in training, with the buffers that are saved."""
    return refined_nll(state.net, _val_batches(state, data), state.ranks)


def _val_batches(state: TrainState, data: ImageData) -> Iterator[Batch]:
    state.ranks.broadcast(state.net.buffers())
    return data.evaluation_batches(
        "val",
        batch_size=state.settings.evaluation.batch_size,
        device=state.device,
        channels_last=state.channels_last,
        share=state.share,
    )


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


@torch.inference_mode()
def refined_nll(net: MultiExitNet, batches: Iterable[Batch], ranks: Ranks) -> tuple[float, ...]:
    """Per-exit mean NLL in nats at each exit's best temperature, in evaluation mode and float32.

    What is left of the NLL once confidence is put right, as it is before anything is deployed: the
    refinement error (Berta, Holzmüller, Jordan & Bach, "Rethinking Early Stopping: Refine, Then
    Calibrate", 2025). It is the lowest over ``INVERSE_TEMPERATURES``, one of which is within 5 % of
    the best; sums over batches are all that is kept.
    """
    device = next(net.parameters()).device
    beta_G = torch.tensor(INVERSE_TEMPERATURES, device=device)
    nll_KG = torch.zeros(net.num_exits, len(beta_G), dtype=torch.float64, device=device)
    samples = torch.zeros((), dtype=torch.int64, device=device)
    with evaluating(net):
        for images, labels_B in batches:
            logits_KBC = net(images).float()
            index_KB1 = labels_B.expand(net.num_exits, -1).unsqueeze(-1)
            label_KB = logits_KBC.gather(-1, index_KB1).squeeze(-1)
            for g, beta in enumerate(beta_G):
                total_KB = (logits_KBC * beta).logsumexp(-1)
                nll_KG[:, g] += (total_KB - beta * label_KB).sum(1)
            samples += len(labels_B)
    for sums in (nll_KG, samples):
        ranks.total(sums)
    return tuple((nll_KG.amin(1) / samples).tolist())
