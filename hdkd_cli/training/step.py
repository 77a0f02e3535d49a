"""One optimiser step: forward, weighted terms, backward, update. It never waits for the device.

Shape suffixes: K exits, B batch, C classes, T terms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hdkd_cli.data import Batch
from hdkd_cli.data.order import derived_seed
from hdkd_cli.method.hypergradient import averaged
from hdkd_cli.training.precision import autocast
from hdkd_cli.training.state import TrainState
from hdkd_cli.training.totals import Totals


def new_totals(state: TrainState) -> Totals:
    """Totals of no step at all."""
    return Totals.of_no_step(len(state.terms.terms), state.net.num_exits, state.device)


def take_step(
    state: TrainState, batches: Iterator[Batch], val_batches: Iterator[Batch], totals: Totals
) -> None:
    """One step of training: ``train_step``, and the update of the weights where it is due.

    Args:
        state: What is trained; changed in place, and counts the step.
        batches: Gives this rank's share of the step's batch.
        val_batches: Asked for one batch where the weights are updated.
        totals: Receives what was seen.
    """
    s = state.settings.training
    # dropout and the like: replayable, and different on every rank
    torch.manual_seed(derived_seed(s.seed, "step", state.step) + state.ranks.rank)
    batch = next(batches)
    if state.mix is not None:
        batch = state.mix(batch)
    micro_batches = [
        Batch(*parts)
        for parts in zip(
            batch.images.chunk(s.accumulate), batch.labels.chunk(s.accumulate), strict=True
        )
    ]
    state.regime.enter(state.step)
    harmonizer = state.harmonizer
    if harmonizer and not (harmonizer.due(state.step) and state.regime.phase != "backbone"):
        harmonizer = None
    if harmonizer:
        harmonizer.before_step(state.net)
    moved = train_step(state, micro_batches, totals)
    if state.average is not None:
        state.average.update(state.net, state.step)
    if harmonizer:
        state.update_weights(micro_batches, next(val_batches), moved)
        totals.updates.append((state.step + 1, state.last_update.clone()))
    state.step += 1


def train_step(state: TrainState, micro_batches: Sequence[Batch], totals: Totals) -> Tensor:
    """Take one optimiser step on the mean loss over ``micro_batches`` and add it to ``totals``.

    The gradients are averaged over the ranks, so that all of them take the same step. ``totals``
    holds what this rank saw.

    If the loss or a gradient is not finite the update does nothing; ``state.first_bad_step`` then
    remembers the step (with fp16 a mere overflow only lowers the loss scale), and no later step
    updates anything either.

    Returns:
        Boolean scalar on the device: whether the parameters moved.
    """
    net, optimizer, loss_scale = state.net, state.optimizer, state.loss_scale
    weights_T = state.step_weights()
    share = 1 / len(micro_batches)
    finite = torch.ones((), dtype=torch.bool, device=state.device)
    annealing, sureness = state.terms.annealing, torch.zeros((), device=state.device)
    optimizer.zero_grad(set_to_none=False)
    for images, labels in micro_batches:
        with autocast(state.device, state.autocast_dtype):
            logits_KBC = state.forward(images)
        terms_T = state.terms(logits_KBC, labels)
        weighted_T = weights_T * terms_T
        loss = weighted_T.sum() * share
        if state.surgery is None:
            torch.autograd.backward(loss * loss_scale.scale)
        else:
            trained = [p for p in net.parameters() if p.requires_grad]
            state.surgery.backward(weighted_T * loss_scale.scale, trained)
        finite = finite & torch.isfinite(loss.detach())
        if annealing is not None:
            sureness = sureness + annealing.sureness(logits_KBC.detach()) * share
        totals.loss += loss.detach()
        totals.terms_T += terms_T.detach() * share
        likeliest_B = labels if labels.ndim == 1 else labels.argmax(1)
        totals.correct_K += (logits_KBC.detach().argmax(-1) == likeliest_B).float().mean(1) * share
    totals.steps += 1
    if annealing is not None:
        annealing.step(state.ranks.mean(sureness))

    if state.ranks.size > 1:
        finite = _average_over_ranks(state, finite)
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    moved = finite & torch.isfinite(torch.nn.utils.get_total_norm(gradients))
    bad = ~moved & (~finite | loss_scale.hopeless())
    undecided = state.first_bad_step < 0
    state.first_bad_step = torch.where(undecided & bad, state.step, state.first_bad_step)
    moved = moved & (state.first_bad_step < 0)
    # read by the fused kernel, on the device: divide by the scale; leave everything if found_inf
    optimizer.grad_scale = loss_scale.scale  # type: ignore[attr-defined]
    optimizer.found_inf = (~moved).float()  # type: ignore[attr-defined]
    optimizer.step()
    loss_scale.update(~moved)
    return moved


def _average_over_ranks(state: TrainState, finite: Tensor) -> Tensor:
    """Average all gradients; returns whether the losses of all ranks were finite.

    One message after the backward pass, with the flag in it, instead of DistributedDataParallel's
    buckets: the network stays the bare module that forward mode needs, the decision to move is the
    same on all ranks without another message, and accumulation needs no special case. The price is
    that communication does not overlap with the backward pass. Multi-exit networks are small (a few
    to a few tens of MB of gradients, milliseconds on the links of a GPU server), so it is small.
    """
    parameters = [p for p in state.net.parameters() if p.requires_grad]
    for parameter in parameters:
        if parameter.grad is None:  # unused here, but maybe not on another rank
            parameter.grad = torch.zeros_like(parameter)
    gradients = [p.grad for p in parameters if p.grad is not None]
    bad, *averages = averaged([(~finite).float(), *gradients], state.ranks.mean)
    torch._foreach_copy_(gradients, averages)
    return bad == 0
