"""Faster steps for a wait before the first one: compiled passes, replayed weight updates."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from hdkd_cli.data import Batch
from hdkd_cli.errors import SettingsError
from hdkd_cli.training.precision import autocast
from hdkd_cli.training.state import TrainState, UpdateWeights
from hdkd_cli.wording import first_line


def compile_step(state: TrainState) -> float:
    """Compile what ``train_step`` runs forward and backward; returns the seconds it took.

    torch keeps compiled code on disk: the next run of the same network waits less. On CUDA the
    passes become CUDA graphs, and so does the update of the weights where nothing in it needs the
    host: one process, no random numbers. An update's own passes stay those of the bare network,
    for compiled code has no forward mode.

    On CUDA kernels are chosen by timing them, so two runs may differ by rounding.

    Parameters and buffers are as before; random numbers are not, but every step seeds its own.

    Raises:
        SettingsError: this machine cannot compile, or this network cannot be compiled.
    """
    from torch._dynamo.exc import TorchDynamoException

    began = time.perf_counter()
    cuda = state.device.type == "cuda"
    if cuda:  # convolutions by the fastest kernel for their shape, in this whole process
        torch.backends.cudnn.benchmark = True
    state.forward = torch.compile(
        state.net, dynamic=False, mode="reduce-overhead" if cuda else "default"
    )
    buffers = list(state.net.buffers())
    kept = [buffer.clone() for buffer in buffers]
    try:
        # a CUDA graph is recorded in the second pass and replayed from the third on
        for _ in range(3 if cuda else 1):
            _one_pass(state)
    except TorchDynamoException as problem:
        raise SettingsError(
            f"training.compile: {first_line(problem)}", hint="train without it"
        ) from None
    drew = cuda and _draws(state)
    torch._foreach_copy_(buffers, kept)
    if cuda and state.harmonizer is not None and state.ranks.size == 1 and not drew:
        state.update_weights = Replayed(state.update_weights)
    return time.perf_counter() - began


def _one_pass(state: TrainState) -> None:
    """Forward and backward on images of the right shape; the gradients are dropped."""
    images, labels = _empty_batch(state)
    # Gradients have memory of their own before the first pass: that of a CUDA graph is overwritten.
    for parameter in state.net.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    with autocast(state.device, state.autocast_dtype):
        logits_KBC = state.forward(images)
    torch.autograd.backward(state.terms(logits_KBC, labels).sum())
    state.optimizer.zero_grad(set_to_none=False)
    if state.device.type == "cuda":
        torch.cuda.synchronize(state.device)


def _empty_batch(state: TrainState) -> Batch:
    """A micro-batch of grey images."""
    s = state.settings.training
    size = s.batch_size // s.accumulate // state.ranks.size
    images = torch.zeros(size, *state.net.input_shape, device=state.device)
    layout = torch.channels_last if state.channels_last else torch.contiguous_format
    labels = torch.zeros(size, dtype=torch.int64, device=state.device)
    return Batch(images.contiguous(memory_format=layout), labels)


def _draws(state: TrainState) -> bool:
    """Whether a pass of the bare network on a GPU draws random numbers there (dropout does)."""
    before = torch.cuda.get_rng_state(state.device)
    with torch.no_grad(), autocast(state.device, state.autocast_dtype):
        state.net(_empty_batch(state).images)
    return not torch.equal(before, torch.cuda.get_rng_state(state.device))


class Replayed:
    """A weight update that is recorded as a CUDA graph when it has run a few times.

    A graph reads and writes the same memory every time: batches are copied to where the recorded
    ones were, and everything else that an update changes (weights, moments, E_k) stays in place.

    Args:
        update: Runs without waiting for the device and draws no random numbers.
    """

    warmups = 3
    """Runs before the recording, in which libraries choose their kernels."""

    def __init__(self, update: UpdateWeights) -> None:
        self._update = update
        self._runs = 0
        self._graph = torch.cuda.CUDAGraph()
        self._inputs: tuple[list[Batch], Batch, Tensor] | None = None

    def __call__(self, micro_batches: Sequence[Batch], val_batch: Batch, moved: Tensor) -> None:
        """Update the weights after a step."""
        if self._runs < self.warmups:
            self._runs += 1
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                self._update(micro_batches, val_batch, moved)
            torch.cuda.current_stream().wait_stream(aside)
            return
        if self._inputs is None:
            self._inputs = [_copy(b) for b in micro_batches], _copy(val_batch), moved.clone()
            # other threads (one pins the loader's batches) may go on calling CUDA meanwhile
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._update(*self._inputs)
        batches, val, ok = self._inputs
        for ours, theirs in zip([*batches, val], [*micro_batches, val_batch], strict=True):
            ours.images.copy_(theirs.images)
            ours.labels.copy_(theirs.labels)
        ok.copy_(moved)
        self._graph.replay()


def _copy(batch: Batch) -> Batch:
    return Batch(batch.images.clone(), batch.labels.clone())
