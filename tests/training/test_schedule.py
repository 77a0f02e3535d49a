"""Learning rates against PyTorch's own schedulers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import changed, small_settings
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, SequentialLR

from hdkd_cli.data import open_data
from hdkd_cli.settings.schema import OptimizerSettings, ScheduleSettings
from hdkd_cli.training.building import build_state
from hdkd_cli.training.schedule import learning_rate, weights_learning_rate


def rates(scheduler, optimizer, steps):
    out = []
    for _ in range(steps):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return out


def sgd(lr):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def ours(steps, lr, **schedule):
    section = ScheduleSettings(**schedule)
    return [learning_rate(i, steps, OptimizerSettings(lr=lr), section) for i in range(steps)]


def test_multi_step_is_torchs():
    optimizer = sgd(0.1)
    theirs = rates(MultiStepLR(optimizer, [150, 225], 0.1), optimizer, 300)
    assert ours(300, 0.1) == pytest.approx(theirs, rel=1e-12)


def test_cosine_is_torchs():
    optimizer = sgd(0.4)
    theirs = rates(CosineAnnealingLR(optimizer, 77), optimizer, 77)
    assert ours(77, 0.4, kind="cosine") == pytest.approx(theirs, rel=1e-9)


def test_warmup_then_cosine_is_torchs():
    optimizer = sgd(0.4)
    warm = LinearLR(optimizer, start_factor=1 / 10, total_iters=9)
    cosine = CosineAnnealingLR(optimizer, 90)
    theirs = rates(SequentialLR(optimizer, [warm, cosine], [10]), optimizer, 100)
    assert ours(100, 0.4, kind="cosine", warmup=0.1) == pytest.approx(theirs, rel=1e-9)


def test_a_shorter_run_keeps_the_shape():
    long, short = ours(400, 0.1), ours(40, 0.1)
    assert long[::10] == short


@given(st.integers(0, 10**7))
def test_loss_weights_move_alike_in_runs_of_any_length(updates):
    rate = weights_learning_rate(updates)
    assert 0 < rate <= 0.01
    assert rate == 0.01 or rate * updates == pytest.approx(2.5)
    assert rate * updates <= 2.5 * (1 + 1e-12)


@pytest.mark.parametrize(("given_lr", "epochs"), [(None, 1), (None, 300), (0.02, 300)])
def test_a_run_takes_the_rate_of_its_length_unless_told(given_lr, epochs):
    settings = changed(small_settings(), "weights", interval=2, lr=given_lr)
    settings = changed(settings, "training", epochs=epochs, max_steps=3)
    data = open_data(settings.data)
    harmonizer = build_state(settings, data, torch.device("cpu")).harmonizer
    updates = epochs * (len(data.splits["train"]) // settings.training.batch_size) // 2
    assert harmonizer is not None
    assert (updates > 250) == (epochs == 300)
    assert harmonizer.lr == (given_lr or min(0.01, 2.5 / updates))
