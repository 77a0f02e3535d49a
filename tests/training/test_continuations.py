"""Rounds of continuations: they find what training by hand finds, and leave no trace."""

import pytest
import torch
from small_runs import changed, small_settings
from test_loop import CPU, StopAt, assert_same_bits, begin, go

from hdkd_cli.data import open_data
from hdkd_cli.errors import InterruptedRun
from hdkd_cli.runs.metrics import read_metrics
from hdkd_cli.settings.schema import WeightSettings
from hdkd_cli.training.building import build_state
from hdkd_cli.training.continuations import try_out
from hdkd_cli.training.distributed import ALONE
from hdkd_cli.training.events import RunStarted, TradeoffsMoved
from hdkd_cli.training.loop import train_stream
from hdkd_cli.training.monitor import refined_nll
from hdkd_cli.training.schedule import round_steps
from hdkd_cli.training.signals import StopRequest
from hdkd_cli.training.state import TrainState
from hdkd_cli.training.step import new_totals, take_step
from hdkd_cli.ui.progress import PlainProgress

WEIGHTS = WeightSettings(learner="continuations", rounds=2, horizon=2)
SETTINGS = changed(small_settings(weights=WEIGHTS), "training", log_every=1)


@pytest.fixture
def state() -> TrainState:
    return build_state(SETTINGS, open_data(SETTINGS.data), CPU)


def trained_by_hand(raw_T: torch.Tensor, rates: list[float]) -> torch.Tensor:
    """Refined NLL of every exit after steps at ``rates``, from scratch, with the weights held."""
    data = open_data(SETTINGS.data)
    state = build_state(SETTINGS, data, CPU)
    state.weights.raw_T.copy_(raw_T)
    batches = train_stream(state, data).batches(0)
    for rate in rates:
        state.optimizer.param_groups[0]["lr"] = rate
        take_step(state, batches, iter(()), new_totals(state))
    images = data.evaluation_batches("val", batch_size=256, device=CPU, channels_last=False)
    return torch.tensor(refined_nll(state.net, images, ALONE))


def test_a_continuation_is_training_with_other_weights_and_a_falling_rate(state):
    """Horizon 2, then four steps on the way to zero."""
    data, stream = open_data(SETTINGS.data), train_stream(state, open_data(SETTINGS.data))
    found = try_out(state, state.tradeoffs, data, stream, 0.1, StopRequest())
    rates = [0.1, 0.1, 0.08, 0.06, 0.04, 0.02]
    objectives = [found.here, *found.up_M.tolist(), *found.down_M.tolist()]
    for phi_M, objective in zip(state.tradeoffs.probes(WEIGHTS.probe), objectives, strict=True):
        nll_K = trained_by_hand(state.tradeoffs.raw(phi_M), rates)
        assert objective == pytest.approx(float(nll_K.log().mean()), rel=1e-5)


def test_trying_out_leaves_everything_as_it_was(state):
    data = open_data(SETTINGS.data)
    before = state.snapshot()
    try_out(state, state.tradeoffs, data, train_stream(state, data), 0.1, StopRequest())
    after = state.snapshot()
    assert after.step == before.step == 0
    for group, tensors in before.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, after.tensors[group][name]), name
    assert torch.equal(before.raw_T, after.raw_T)


def test_a_continuation_that_diverges_is_the_worse_one(state):
    data = open_data(SETTINGS.data)
    found = try_out(state, state.tradeoffs, data, train_stream(state, data), 1e30, StopRequest())
    assert found.up_M.isinf().all()
    assert found.down_M.isinf().all()
    assert int(state.first_bad_step) == -1


def test_rounds_lie_within_the_schedule():
    assert round_steps(100, 2) == (10, 30)
    assert round_steps(4680, 6)[0] > 0
    assert round_steps(4680, 6)[-1] < 0.4 * 4680


def test_a_run_holds_its_rounds_once_and_follows_what_they_found(runs_dir):
    events, run = [], begin(runs_dir, SETTINGS)
    go(run, SETTINGS, sink=events.append)
    assert next(e for e in events if isinstance(e, RunStarted)).weight_updates == 2
    moved = [e for e in events if isinstance(e, TradeoffsMoved)]
    assert [e.step for e in moved] == list(round_steps(12, 2))
    assert all(len(e.up_M) == len(e.names) == 2 for e in moved)
    weights = [e["weights_T"] for e in read_metrics(run.metrics) if e["event"] == "step"]
    assert weights[0] != weights[1] == weights[3] != weights[4]
    said: list[str] = []
    for event in moved:
        PlainProgress(said.append)(event)
    assert [line.split()[:2] for line in said] == [["step", "1"], ["step", "4"]]
    assert "share of distillation" in said[0]


@pytest.mark.parametrize("at", [4, 5])
def test_a_run_stopped_at_a_round_or_after_it_ends_with_the_same_bits(runs_dir, whole_run, at):
    whole = whole_run(SETTINGS)
    stopped = begin(runs_dir, SETTINGS)
    with pytest.raises(InterruptedRun):
        go(stopped, SETTINGS, sink=StopAt(at))
    go(stopped, SETTINGS, resume=True)
    assert_same_bits(whole, stopped)


def test_a_signal_within_a_round_gives_it_up_and_it_is_held_anew(runs_dir, whole_run, monkeypatch):
    from hdkd_cli.training import continuations

    whole = whole_run(SETTINGS)
    stopped = begin(runs_dir, SETTINGS)
    real, calls = continuations.take_step, []

    def signalled(state, *arguments):
        calls.append(state.step)
        if len(calls) == 9:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)
        return real(state, *arguments)

    monkeypatch.setattr(continuations, "take_step", signalled)
    with pytest.raises(InterruptedRun):
        go(stopped, SETTINGS)
    assert len(calls) < 20
    assert stopped.checkpoint().state().step == round_steps(12, 2)[0]
    monkeypatch.undo()
    go(stopped, SETTINGS, resume=True)
    assert_same_bits(whole, stopped)


def test_another_parametrisation_is_refused():
    with pytest.raises(ValueError, match="parametrisation"):
        WeightSettings(learner="continuations", parametrisation="softmax")


def test_following_a_run_gives_its_weights_and_its_bits(runs_dir, whole_run):
    learned = small_settings()
    first = whole_run(learned)
    follow = {"learned": False, "replay": str(first.path)}
    settings = changed(changed(learned, "weights", **follow), "training", log_every=3)
    second = begin(runs_dir, settings)
    go(second, settings)

    def logged(run):
        return [e["weights_T"] for e in read_metrics(run.metrics) if e["event"] == "step"]

    for ours, theirs in zip(logged(second), logged(first), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("form", ["group-means", "permuted", "final"])
def test_what_is_kept_of_a_followed_run(whole_run, form, state):
    learned = small_settings()
    first = whole_run(learned)
    follow = WeightSettings(learned=False, replay=str(first.path), replay_as=form)
    replayed = build_state(replace_weights(learned, follow), open_data(learned.data), CPU).replayed
    logged = [e["weights_T"] for e in read_metrics(first.metrics) if e["event"] == "step"]
    last_T = (torch.tensor(logged[-1]) / state.weights.initial_T).log()
    kept_T = replayed.at(1.0)
    groups = [[0, 1, 2], [3, 4, 5]]
    if form == "final":
        torch.testing.assert_close(kept_T, last_T)
        torch.testing.assert_close(replayed.at(0.0), last_T)
    elif form == "group-means":
        for group in groups:
            torch.testing.assert_close(kept_T[group], last_T[group].mean().expand(3))
    else:
        for group in groups:
            torch.testing.assert_close(kept_T[group].sort()[0], last_T[group].sort()[0])


def replace_weights(settings, weights):
    return settings.model_copy(update={"weights": weights})
