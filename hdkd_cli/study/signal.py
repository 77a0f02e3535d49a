"""How much a hypergradient says: measured on a real network, before anything is trained with it.

At moments of a run, draws from other training and validation images are compared with each other.
T terms, R draws, M trade-offs, K exits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.data import Batch, ImageData, open_data
from hdkd_cli.devices import resolve_device
from hdkd_cli.method.hypergradient import StepInputs, hypergradient, validation_gradient
from hdkd_cli.method.tradeoffs import Tradeoffs
from hdkd_cli.method.validation import BalancedValidation
from hdkd_cli.records.study import SignalEntry
from hdkd_cli.settings.schema import Settings
from hdkd_cli.training.building import build_state
from hdkd_cli.training.continuations import try_out
from hdkd_cli.training.loop import train_stream
from hdkd_cli.training.schedule import learning_rate
from hdkd_cli.training.signals import StopRequest
from hdkd_cli.training.state import TrainState
from hdkd_cli.training.step import new_totals, take_step

MOMENTS = (0.02, 0.4, 0.7)
"""Fractions of the schedule at which the signal is measured."""
VAL_IMAGES = (16, 256)
"""Validation images of one draw."""
DRAWS = 24
"""Hypergradients that are compared at each moment."""
CONTINUATIONS = 3
"""Rounds of continuations that are compared at each moment."""

Draws = dict[str, list[NDArray[np.float64]]]


def measure_signal(
    name: str, settings: Settings, note: Callable[[str], object]
) -> Iterator[SignalEntry]:
    """Train along a schedule and measure every candidate at `MOMENTS`.

    Args:
        name: What the setting is called.
        settings: A run; its weights stay where they start.
        note: Told how far it is.

    Raises:
        SettingsError, DataError: it cannot be trained.
    """
    device = resolve_device(settings.training.device)
    data = open_data(settings.data)
    data.images.make_ready(device)
    state = build_state(settings, data, device)
    state.harmonizer = state.tradeoffs = None
    tradeoffs = Tradeoffs(state.terms.terms)
    stream = train_stream(state, data)
    batches, totals = stream.batches(0), new_totals(state)
    whole = state.schedule.total
    for moment in (round(fraction * whole) for fraction in MOMENTS):
        while state.step < moment:
            _set_rate(
                state, learning_rate(state.step, whole, settings.optimizer, settings.schedule)
            )
            take_step(state, batches, iter(()), totals)
        lr = learning_rate(moment, whole, settings.optimizer, settings.schedule)
        note(f"{name}: step {moment} of {whole}, {DRAWS} hypergradients of each kind")
        drawn = _hypergradients(state, data, lr)
        basis_TM = (tradeoffs.basis_TM * state.weights.initial_T[:, None]).double().numpy()
        kinds = [term.kind for term in state.terms.terms]
        for candidate, draws in drawn.items():
            yield _entry(name, state, lr, candidate, np.array(draws), kinds, basis_TM, tradeoffs)
        note(f"{name}: step {moment} of {whole}, {CONTINUATIONS} rounds of continuations")
        rounds_RM = []
        for place in range(CONTINUATIONS):
            skipped = place * stream.steps_per_epoch
            found = try_out(
                state, tradeoffs, data, stream, lr, StopRequest(), skipped_steps=skipped
            )
            assert found is not None
            rounds_RM.append((found.up_M - found.down_M).numpy())
        yield _continuations(name, state, lr, np.array(rounds_RM, np.float64), tradeoffs.names)


def _hypergradients(state: TrainState, data: ImageData, lr: float) -> Draws:
    """Draws (R, T) by candidate: size of the validation batch and mode of BatchNorm."""
    before = state.snapshot()
    draws: Draws = {}
    _set_rate(state, lr)
    later = train_stream(state, data).batches(state.step)
    val = {size: _val_batches(state, data, size) for size in VAL_IMAGES}
    for _ in range(DRAWS):
        state.restore(before)
        inputs, batch = StepInputs.of(state.net), next(later)
        take_step(state, iter([batch]), iter(()), new_totals(state))
        for size, mode in ((size, mode) for size in VAL_IMAGES for mode in ("batch", "running")):
            state.net.train(mode == "batch")
            upper = validation_gradient(
                state.net,
                BalancedValidation(state.net.num_exits, 1.0, 0.0),
                next(val[size]),
                autocast_dtype=state.autocast_dtype,
            )
            state.net.train()
            hypergradient_T = hypergradient(
                state.net, state.terms, _copy(inputs), upper.direction, [batch],
                nesterov_momentum=0.0, autocast_dtype=state.autocast_dtype,
            )  # fmt: skip
            name = f"one step, {size} validation images, {mode} statistics"
            draws.setdefault(name, []).append(hypergradient_T.double().cpu().numpy())
    state.restore(before)
    return draws


def _copy(inputs: StepInputs) -> StepInputs:
    """`hypergradient` uses the buffers up."""
    buffers = {name: buffer.clone() for name, buffer in inputs.buffers.items()}
    return StepInputs(inputs.parameters, buffers, inputs.generators)


def _val_batches(state: TrainState, data: ImageData, size: int) -> Iterator[Batch]:
    stream = data.val_stream(
        batch_size=size, seed=state.step, device=state.device, channels_last=state.channels_last
    )
    return stream.batches(0)


def _set_rate(state: TrainState, lr: float) -> None:
    for group in state.optimizer.param_groups:
        group["lr"] = lr


def _entry(
    setting: str,
    state: TrainState,
    lr: float,
    candidate: str,
    draws_RT: NDArray[np.float64],
    kinds: Sequence[str],
    basis_TM: NDArray[np.float64],
    tradeoffs: Tradeoffs,
) -> SignalEntry:
    deviations_RT = deviations(draws_RT, kinds)
    means, t_values = _t_values(tradeoffs.names, draws_RT @ basis_TM)
    return SignalEntry(
        setting=setting,
        step=state.step,
        lr=lr,
        candidate=candidate,
        draws=len(draws_RT),
        signal_to_noise=signal_to_noise(draws_RT),
        sign_agreement=sign_agreement(deviations_RT),
        halves_cosine=halves_cosine(deviations_RT),
        tradeoffs=means,
        t_values=t_values,
    )


def _continuations(
    setting: str,
    state: TrainState,
    lr: float,
    rounds_RM: NDArray[np.float64],
    names: Sequence[str],
) -> SignalEntry:
    means, t_values = _t_values(names, rounds_RM)
    return SignalEntry(
        setting=setting,
        step=state.step,
        lr=lr,
        candidate="continuations",
        draws=len(rounds_RM),
        signal_to_noise=signal_to_noise(rounds_RM),
        sign_agreement=sign_agreement(rounds_RM),
        halves_cosine=None,
        tradeoffs=means,
        t_values=t_values,
    )


def deviations(draws_RT: NDArray[np.float64], kinds: Sequence[str]) -> NDArray[np.float64]:
    """Draws less the mean of their kind's terms: what trades terms off against each other."""
    rest_RT = draws_RT.copy()
    for kind in set(kinds):
        members = [t for t, name in enumerate(kinds) if name == kind]
        rest_RT[:, members] -= draws_RT[:, members].mean(axis=1, keepdims=True)
    return rest_RT


def signal_to_noise(draws_RT: NDArray[np.float64]) -> float | None:
    """|mean| / standard deviation of one draw, mean over terms; None where nothing varies."""
    spread_T = draws_RT.std(axis=0, ddof=1)
    if not (spread_T > 0).all():
        return None
    return float((np.abs(draws_RT.mean(axis=0)) / spread_T).mean())


def sign_agreement(draws_RT: NDArray[np.float64]) -> float:
    """Probability that two different draws have the same sign in a term, mean over terms.

    With p of R draws positive, p(p−1) + (R−p)(R−p−1) of the R(R−1) ordered pairs agree.
    """
    positive_T = (draws_RT > 0).sum(axis=0)
    count = len(draws_RT)
    agreeing_T = positive_T * (positive_T - 1) + (count - positive_T) * (count - positive_T - 1)
    return float((agreeing_T / (count * (count - 1))).mean())


def halves_cosine(draws_RT: NDArray[np.float64]) -> float:
    """Cosine between the means of the first and of the second half of the draws."""
    half = len(draws_RT) // 2
    one_T, other_T = draws_RT[:half].mean(axis=0), draws_RT[half:].mean(axis=0)
    return float(one_T @ other_T / (np.linalg.norm(one_T) * np.linalg.norm(other_T)))


def _t_values(
    names: Sequence[str], draws_RM: NDArray[np.float64]
) -> tuple[dict[str, float], dict[str, float]]:
    mean_M = draws_RM.mean(axis=0)
    error_M = draws_RM.std(axis=0, ddof=1) / math.sqrt(len(draws_RM))
    with np.errstate(divide="ignore", invalid="ignore"):
        t_M = np.nan_to_num(mean_M / error_M)
    return (
        dict(zip(names, mean_M.tolist(), strict=True)),
        dict(zip(names, t_M.tolist(), strict=True)),
    )
