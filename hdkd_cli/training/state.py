"""Everything of a run that changes while it trains, and how a checkpoint keeps it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdkd_cli.data import Batch, Share
from hdkd_cli.errors import CheckpointError
from hdkd_cli.method.harmonizer import Harmonizer
from hdkd_cli.method.terms import Terms
from hdkd_cli.method.tradeoffs import Tradeoffs
from hdkd_cli.method.weights import HarmonizedWeights
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.runs.checkpoints import Checkpoint, save_checkpoint
from hdkd_cli.runs.network import load_network
from hdkd_cli.settings.schema import Settings
from hdkd_cli.training.averaging import Average
from hdkd_cli.training.distributed import Ranks
from hdkd_cli.training.mixing import mixing
from hdkd_cli.training.optimizer import optimizer_tensors
from hdkd_cli.training.precision import LossScale
from hdkd_cli.training.regimes import Regime
from hdkd_cli.training.replay import ReplayedWeights
from hdkd_cli.training.schedule import Schedule, round_steps
from hdkd_cli.training.surgery import Surgery
from hdkd_cli.training.totals import Totals


class Snapshot(NamedTuple):
    """What training changes.

    Attributes:
        tensors: Copies of parameters, buffers and the optimiser's state, by group and name.
        raw_T: The weights' learned vector.
        step: Optimiser steps done.
        first_bad_step: See `TrainState`.
    """

    tensors: dict[str, dict[str, Tensor]]
    raw_T: Tensor
    step: int
    first_bad_step: Tensor


UpdateWeights = Callable[[Sequence[Batch], Batch, Tensor], None]


@dataclass
class TrainState:
    """The network, what trains it, and how far it has got.

    Attributes:
        settings: The run's settings.
        schedule: How long it is.
        regime: What is trained at a step.
        device: Where all tensors are.
        ranks: The processes that train it together; all their states are the same, but for the
            buffers of ``net`` (statistics of BatchNorm): those of the first rank count.
        net: The network, float32 parameters.
        terms: The loss terms.
        weights: The weight of each term.
        harmonizer: What learns the weights from hypergradients, if anything does.
        tradeoffs: What learns them from continuations, if anything does.
        replayed: The weights of another run that they follow, if they do.
        optimizer: What moves the parameters; its buffers exist from the start.
        loss_scale: fp16's loss scale (1 otherwise).
        autocast_dtype: dtype of forward passes; None for float32.
        channels_last: Whether images are kept in NHWC order.
        step: Optimiser steps done.
        totals: What the steps since the last log record added up to.
        first_bad_step: Scalar on the device: the first step that was not finite, or -1.
        notes: What to tell about how it was built.
        forward: ``net`` as a training step runs it, images → logits: itself, or compiled.
        update_weights: What follows a step after which the weights are due: the step's
            micro-batches, a validation batch, and whether the parameters moved.
        surgery: The backward pass, if it is not that of the sum of the losses.
        mix: What is done to a batch before a step, if anything is.
        average: The averaged parameters, if they are what is evaluated.
        last_update: What it found last, on the device: applied, L_val, CE_k, hypergradient.
    """

    settings: Settings
    schedule: Schedule
    regime: Regime
    device: torch.device
    ranks: Ranks
    net: MultiExitNet
    terms: Terms
    weights: HarmonizedWeights
    harmonizer: Harmonizer | None
    tradeoffs: Tradeoffs | None
    replayed: ReplayedWeights | None
    optimizer: torch.optim.Optimizer
    loss_scale: LossScale
    autocast_dtype: torch.dtype | None
    channels_last: bool
    step: int
    first_bad_step: Tensor
    notes: list[str]

    def __post_init__(self) -> None:
        self.forward: Callable[[Tensor], Tensor] = self.net
        self.update_weights: UpdateWeights = self._update_weights
        training, terms = self.settings.training, self.terms.terms
        self.surgery = (
            None
            if self.settings.objective.gradient_surgery == "off"
            else Surgery(terms, self.net.num_exits, self.device)
        )
        self.mix = mixing(training, self.net.num_classes)
        self.average = Average(self.net, training.average) if training.average else None
        exits = self.net.num_exits
        self.last_update = torch.zeros(2 + exits + len(terms), device=self.device)
        self.totals = Totals.of_no_step(len(terms), exits, self.device)

    def _update_weights(
        self, micro_batches: Sequence[Batch], val_batch: Batch, moved: Tensor
    ) -> None:
        assert self.harmonizer is not None, "fixed weights are never due"
        update = self.harmonizer.after_step(self.net, micro_batches, val_batch, step_ok=moved)
        scalars = torch.stack([update.applied.float(), update.val_loss.float()])
        # in place: where this is replayed as a CUDA graph, it is written to the same memory
        self.last_update.copy_(torch.cat([scalars, update.val_ce_K, update.hypergradient_T]))

    @property
    def share(self) -> Share:
        """What this rank reads of the images."""
        return Share(self.ranks.rank, self.ranks.size)

    @property
    def weight_updates(self) -> int:
        """Updates of the weights from the first step to the last; 0 where they are fixed."""
        return self.updates_before(self.schedule.end)

    def updates_before(self, step: int) -> int:
        """Updates of the weights that are due before the step with index ``step``."""
        if self.tradeoffs is not None:
            rounds = round_steps(self.schedule.total, self.settings.weights.rounds)
            return sum(at < step for at in rounds)
        if self.harmonizer is None:
            return 0
        return self.regime.updates_before(step, self.harmonizer.interval)

    def step_weights(self) -> Tensor:
        """What each term counts in the step at hand; (T,)."""
        if self.regime.phase == "backbone":
            last = self.terms.names.index(f"ce[{self.net.num_exits}]")
            return F.one_hot(torch.tensor(last, device=self.device), len(self.terms.terms)).float()
        return self.weights().detach()

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything that changes, by group and name as in a checkpoint: no copies."""
        optimizer = {f"loss_scale.{k}": v for k, v in self.loss_scale.tensors().items()}
        optimizer |= {f"totals.{k}": v for k, v in self.totals.tensors().items()}
        optimizer |= optimizer_tensors(self.net, self.optimizer, self.settings.optimizer)
        model: dict[str, Tensor] = self.net.state_dict()
        if self.average is not None:
            optimizer |= {f"trained.{k}": p.detach() for k, p in self.net.named_parameters()}
            model = {**model, **self.average.parameters}
        if self.terms.annealing is not None:
            optimizer["temperature"] = self.terms.annealing.temperature
        return {
            "model": model,
            "optimizer": optimizer,
            "weights": self._learner.state_dict(),
        }

    @property
    def _learner(self) -> nn.Module:
        """What a checkpoint keeps of the weights and of how they are learned."""
        if self.tradeoffs is not None:
            return nn.ModuleDict({"weights": self.weights, "tradeoffs": self.tradeoffs})
        return self.harmonizer or self.weights

    def snapshot(self) -> Snapshot:
        """A copy of everything that training changes, but for the learner of the weights."""
        copies = {
            group: {name: tensor.clone() for name, tensor in tensors.items()}
            for group, tensors in self.tensors().items()
            if group != "weights"
        }
        return Snapshot(copies, self.weights.raw_T.clone(), self.step, self.first_bad_step.clone())

    def restore(self, before: Snapshot) -> None:
        """Take back what ``snapshot`` copied, in place."""
        for group, copies in before.tensors.items():
            for name, tensor in self.tensors()[group].items():
                tensor.copy_(copies[name])
        self.weights.raw_T.copy_(before.raw_T)
        self.step = before.step
        self.first_bad_step = before.first_bad_step.clone()

    def take_from_first_rank(self) -> None:
        """Make this rank's state that of the first one; every rank calls it."""
        for group in self.tensors().values():
            self.ranks.broadcast(group.values())
        step, steps = self.ranks.text(f"{self.step} {self.totals.steps}").split()
        self.step, self.totals.steps = int(step), int(steps)

    def save(self, folder: Path, *, metrics_bytes: int) -> Checkpoint:
        """Write a checkpoint; see ``runs/checkpoints.py``.

        Args:
            folder: The run's ``checkpoints`` folder.
            metrics_bytes: Size of metrics.jsonl that belongs to this state.
        """
        training = self.settings.training
        return save_checkpoint(
            folder,
            self.step,
            self.tensors(),
            {
                "step": self.step,
                "metrics_bytes": metrics_bytes,
                "stretch_steps": self.totals.steps,
                "stretch_seconds": self.totals.seconds,
            },
            architecture=self.net.architecture(),
            keep=training.keep_checkpoints,
            milestone_steps=training.keep_every and training.keep_every * self.schedule.per_epoch,
        )

    def load(self, checkpoint: Checkpoint) -> int:
        """Take back what ``save`` wrote; returns the size metrics.jsonl had.

        Raises:
            CheckpointError: damaged, or of another network or optimiser.
        """
        load_network(self.net, checkpoint)
        optimizer, _ = checkpoint.tensors("optimizer")
        learned, _ = checkpoint.tensors("weights")
        try:
            prefix = "loss_scale."
            self.loss_scale.load(
                {k.removeprefix(prefix): v for k, v in optimizer.items() if k.startswith(prefix)}
            )
            buffers = optimizer_tensors(self.net, self.optimizer, self.settings.optimizer)
            for name, buffer in buffers.items():
                buffer.copy_(optimizer[name])
            if self.average is not None:
                self.average.begin(self.net)
                trained = (name for name, _ in self.net.named_parameters())
                self.average.give(self.net, {k: optimizer[f"trained.{k}"] for k in trained})
            self._learner.load_state_dict(learned)
            if self.terms.annealing is not None:
                self.terms.annealing.temperature.copy_(optimizer["temperature"])
            progress = checkpoint.state()
            if progress.stretch_steps:
                for name, total in self.totals.tensors().items():
                    total.copy_(optimizer[f"totals.{name}"])
        except (KeyError, RuntimeError) as problem:
            raise CheckpointError(
                f"{checkpoint.path}: does not fit these settings ({problem})"
            ) from None
        self.step = progress.step
        self.totals.steps = progress.stretch_steps
        self.totals.seconds = progress.stretch_seconds
        return progress.metrics_bytes
