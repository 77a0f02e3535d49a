"""Every update of the weights is told: what it was made of, and whether it was applied."""

import io
import math

import pytest
import torch
from rich.console import Console
from small_runs import changed, small_settings

from hdkd_cli.data import open_data
from hdkd_cli.errors import SettingsError
from hdkd_cli.method import harmonizer
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.runs.metrics import read_metrics
from hdkd_cli.training.events import RunStarted, StepLogged, WeightsUpdated
from hdkd_cli.training.schedule import weights_learning_rate
from hdkd_cli.training.session import check, run_training
from hdkd_cli.ui.progress import LiveProgress, PlainProgress
from hdkd_cli.ui.report.drawing import drawn
from hdkd_cli.ui.report.history import read_history
from hdkd_cli.ui.report.training_figures import training_figures

CPU = torch.device("cpu")


def train(folder, settings, *sinks):
    run = RunFolder.create(folder, "test", settings)
    events = []
    run_training(run, settings, open_data(settings.data), CPU, sinks=[events.append, *sinks])
    return run, events


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def test_the_told_derivatives_are_all_that_the_weights_were_moved_by(tmp_path):
    run, events = train(tmp_path, small_settings())
    updates = of(WeightsUpdated, events)
    assert [update.step for update in updates] == [2, 4, 6, 8, 10, 12]
    assert of(RunStarted, events)[0].weight_updates == 6
    assert all(update.applied and len(update.val_ce_K) == 3 for update in updates)
    # at first E_k is CE_k itself: L_val = Σ α·CE_k + (1−α)·softplus(0)
    first = updates[0]
    expected = sum(0.5 * ce + 0.5 * math.log(2) for ce in first.val_ce_K)
    assert first.val_loss == pytest.approx(expected, rel=1e-5)

    raw_T = torch.zeros(6, requires_grad=True)
    lr, pull = weights_learning_rate(6), 0.5
    adam = torch.optim.Adam([raw_T], lr=lr)
    initial_T = torch.tensor([1.0, 1, 1, 0.5, 0.5, 1])
    for update in updates:
        before_T = raw_T.detach().clone()
        raw_T.grad = initial_T * before_T.exp() * torch.tensor(update.hypergradient_T)
        adam.step()
        raw_T.data -= lr * pull * before_T
    weights_T = of(StepLogged, events)[-1].weights_T
    assert weights_T == pytest.approx((initial_T * raw_T.exp()).tolist(), rel=1e-5)

    # told with the step's record, before it
    order = [type(e) for e in events if isinstance(e, StepLogged | WeightsUpdated)]
    assert order[:3] == [WeightsUpdated, StepLogged, WeightsUpdated]
    logged = [r for r in read_metrics(run.metrics) if r["event"] == "weights_updated"]
    assert [record["val_loss"] for record in logged] == [update.val_loss for update in updates]


def test_fixed_weights_have_no_updates(tmp_path):
    settings = changed(small_settings(), "weights", learned=False)
    _, events = train(tmp_path, settings)
    assert of(WeightsUpdated, events) == []
    assert of(RunStarted, events)[0].weight_updates == 0
    assert {event.weight_updates_left_out for event in of(StepLogged, events)} == {0}


@pytest.fixture
def second_is_not_finite(monkeypatch):
    """The second update's derivative has an infinite entry."""
    true, calls = harmonizer.hypergradient, iter(range(100))

    def broken_once(*args, **kwargs):
        found_T = true(*args, **kwargs)
        if next(calls) == 1:
            found_T[-1] = math.inf
        return found_T

    monkeypatch.setattr(harmonizer, "hypergradient", broken_once)


@pytest.mark.usefixtures("second_is_not_finite")
def test_an_update_that_was_not_applied_is_counted_told_and_drawn(tmp_path):
    lines, console = [], Console(file=io.StringIO(), width=200)
    with LiveProgress(console) as live:
        run, events = train(tmp_path, small_settings(), PlainProgress(lines.append), live)
    assert [update.applied for update in of(WeightsUpdated, events)] == [
        True, False, True, True, True, True,
    ]  # fmt: skip
    assert [event.weight_updates_left_out for event in of(StepLogged, events)] == [0, 1, 1, 1]
    assert "updates of the loss weights: 6" in lines
    (told,) = [line for line in lines if "not applied" in line]
    assert told.startswith("note: updates of the weights that were not applied: 1 ")
    assert told in console.file.getvalue()

    record = [r for r in read_metrics(run.metrics) if r["event"] == "weights_updated"][1]
    assert record["hypergradient_T"][-1] is None
    assert record["val_loss"] > 0
    history = read_history(run)
    (figure,) = [f for f in training_figures(history, learned=True) if f.name == "weights-updates"]
    assert "1 of them not applied" in figure.caption
    assert figure.columns[:3] == ("step", "objective", "d_ce[1]")
    assert "derivative by weight" in drawn(figure).svg
    assert [len(row) for row in figure.rows] == [2 + 6] * 6
    assert math.isnan(figure.rows[1][-1])
    assert [row[1] for row in figure.rows] == [u.val_loss for u in of(WeightsUpdated, events)]


def test_tensorboard_shows_objective_and_derivatives(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from hdkd_cli.ui.tensorboard import TensorBoardSink

    with TensorBoardSink(tmp_path / "board") as board:
        _, events = train(tmp_path, small_settings(), board)
    seen = EventAccumulator(str(tmp_path / "board"))
    seen.Reload()
    updates = of(WeightsUpdated, events)
    for name, values in (
        ("weights_val/objective", [update.val_loss for update in updates]),
        ("weights_val_ce/2", [update.val_ce_K[1] for update in updates]),
        ("hypergradient/kd[2->1]", [update.hypergradient_T[3] for update in updates]),
    ):
        points = seen.Scalars(name)
        assert [point.step for point in points] == [2, 4, 6, 8, 10, 12]
        assert [point.value for point in points] == pytest.approx(values, rel=1e-6)


def test_a_run_that_would_never_update_its_weights_is_refused(tmp_path):
    settings = changed(small_settings(), "weights", interval=13)  # of 12 steps
    data = open_data(settings.data)
    with pytest.raises(SettingsError, match=r"12 steps.*weights\.interval = 13") as refused:
        check(settings, data, CPU)
    assert "weights.learned=false" in refused.value.hint
    check(changed(settings, "weights", learned=False), data, CPU)
    check(changed(settings, "weights", interval=12), data, CPU)


def test_a_run_that_pauses_before_its_first_update_says_so(tmp_path):
    settings = changed(small_settings(), "training", max_steps=1)
    _, events = train(tmp_path, settings)
    assert "before the first update of the weights" in of(RunStarted, events)[0].notes[0]
