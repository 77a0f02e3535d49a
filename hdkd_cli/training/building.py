"""From settings and data to a fresh state: network, terms, weights and what learns them."""

from __future__ import annotations

from pathlib import Path

import torch

from hdkd_cli.data import ImageData
from hdkd_cli.devices import use_channels_last
from hdkd_cli.errors import SettingsError
from hdkd_cli.method.harmonizer import Harmonizer
from hdkd_cli.method.tradeoffs import Tradeoffs
from hdkd_cli.method.validation import BalancedValidation
from hdkd_cli.method.weights import HarmonizedWeights
from hdkd_cli.runs.network import initial_network
from hdkd_cli.settings.schema import Settings
from hdkd_cli.training.distributed import ALONE, Ranks
from hdkd_cli.training.layout import lay_out
from hdkd_cli.training.objective import build_terms
from hdkd_cli.training.optimizer import build_optimizer, preconditioner
from hdkd_cli.training.precision import LossScale, autocast_dtype
from hdkd_cli.training.regimes import Regime
from hdkd_cli.training.replay import ReplayedWeights
from hdkd_cli.training.schedule import Schedule, weights_learning_rate
from hdkd_cli.training.state import TrainState
from hdkd_cli.training.surgery import refuse_surgery


def build_state(
    settings: Settings, data: ImageData, device: torch.device, ranks: Ranks = ALONE
) -> TrainState:
    """A fresh state; initial parameters depend on ``training.seed`` alone.

    Raises:
        SettingsError: the network or the weights cannot be built, the device lacks the
            precision, the batch has no equal parts for all ranks, or gradients are projected where
            their sum is needed.
    """
    s = settings
    if s.objective.gradient_surgery != "off":
        refuse_surgery(s, ranks)
    if s.training.batch_size % (ranks.size * s.training.accumulate):
        raise SettingsError(
            f"training.batch_size = {s.training.batch_size} is not divisible by {ranks.size} "
            f"ranks × training.accumulate = {s.training.accumulate}"
        )
    schedule = Schedule.of(s.training, len(data.splits["train"]))
    dtype = autocast_dtype(s.training.precision, device)
    net = initial_network(s, num_classes=len(data.classes)).to(device)
    channels_last = use_channels_last(s.training.channels_last, device)
    notes = lay_out(net, device, channels_last=channels_last, compiled=s.training.compile)
    regime = Regime(net, s.training, schedule)
    terms = build_terms(s.objective, net.num_exits, net.num_classes, device)
    try:
        weights = HarmonizedWeights(
            terms,
            init=s.weights.init,
            parametrisation=s.weights.parametrisation,
            supervision_sum=s.weights.supervision_sum,
            distillation_sum=s.weights.distillation_sum,
            tilt=s.weights.tilt,
            dbt_share=s.weights.dbt_share,
            learned=s.weights.learned,
            seed=s.training.seed,
        ).to(device)
    except ValueError as problem:
        raise SettingsError(f"weights: {problem}") from None
    optimizer = build_optimizer(net, s.optimizer, regime.ever_trained)
    harmonizer, tradeoffs, replayed = None, None, None
    if s.weights.replay is not None:
        replayed = ReplayedWeights.read(
            Path(s.weights.replay),
            s.weights.replay_as,
            terms,
            weights.initial_T,
            s.training.seed,
        )
    elif s.weights.by_continuations:
        try:
            tradeoffs = Tradeoffs(terms.terms).to(device)
        except ValueError as problem:
            raise SettingsError(f"weights: {problem}") from None
    elif s.weights.learned:
        harmonizer = Harmonizer(
            weights,
            terms,
            BalancedValidation(net.num_exits, s.weights.alpha, s.weights.ema),
            lr=s.weights.lr
            or weights_learning_rate(regime.updates_before(schedule.total, s.weights.interval)),
            pull=s.weights.pull,
            interval=s.weights.interval,
            nesterov_momentum=s.optimizer.momentum if s.optimizer.nesterov else 0.0,
            # fp16 would need a loss scale of its own: an update then runs in float32
            autocast_dtype=dtype if dtype is torch.bfloat16 else None,
            exact_gradients=net.true_gradients,
            mean=ranks.mean if ranks.size > 1 else None,
            precondition=preconditioner(net, optimizer, s.optimizer),
        ).to(device)
    return TrainState(
        settings=s,
        schedule=schedule,
        regime=regime,
        device=device,
        ranks=ranks,
        net=net,
        terms=terms,
        weights=weights,
        harmonizer=harmonizer,
        tradeoffs=tradeoffs,
        replayed=replayed,
        optimizer=optimizer,
        loss_scale=LossScale(s.training, device),
        autocast_dtype=dtype,
        channels_last=channels_last,
        step=0,
        first_bad_step=torch.full((), -1, dtype=torch.int64, device=device),
        notes=notes,
    )
