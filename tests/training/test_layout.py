"""In NHWC order on a CPU, training runs BatchNorm and ReLU as one operator, or says why not."""

import pytest
import torch
from small_runs import changed, small_settings

from hdkd_cli.data import open_data
from hdkd_cli.models.blocks import ConvBnRelu
from hdkd_cli.models.fused import Unavailable, library
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.settings.schema import OptimizerSettings
from hdkd_cli.training import layout
from hdkd_cli.training.building import build_state
from hdkd_cli.training.events import RunStarted, StepLogged
from hdkd_cli.training.session import run_training

CPU = torch.device("cpu")


def events_of(runs_dir, settings):
    run = RunFolder.create(runs_dir, "test", settings)
    events = []
    run_training(run, settings, open_data(settings.data), CPU, sinks=[events.append])
    return events


def fused(settings):
    state = build_state(settings, open_data(settings.data), CPU)
    (answer,) = {m.fused for m in state.net.modules() if isinstance(m, ConvBnRelu)}
    return answer


def test_only_nhwc_trains_with_the_operator():
    try:
        library()
    except Unavailable as reason:
        pytest.skip(str(reason))
    nhwc = changed(small_settings(), "training", channels_last=True)
    assert fused(nhwc)
    assert not fused(changed(nhwc, "training", channels_last=False))
    assert not fused(changed(nhwc, "training", compile=True))


def test_a_run_with_the_operator_learns_what_one_without_it_does(runs_dir):
    settings = small_settings(optimizer=OptimizerSettings(lr=1e-3))
    plain = changed(settings, "training", channels_last=False, max_steps=4, log_every=1)
    series = [
        [event for event in events_of(runs_dir, s) if isinstance(event, StepLogged)]
        for s in (plain, changed(plain, "training", channels_last=True))
    ]
    assert len(series[0]) == 4
    for nchw, nhwc in zip(*series, strict=True):
        assert nhwc.terms_T == pytest.approx(nchw.terms_T, rel=1e-4, abs=1e-4)
        assert nhwc.weights_T == pytest.approx(nchw.weights_T, rel=1e-3)


def test_without_a_compiler_the_run_says_once_that_it_is_slower(runs_dir, monkeypatch):
    def unavailable(_net):
        raise Unavailable("no C++ compiler was found")

    monkeypatch.setattr(layout, "fuse", unavailable)
    settings = changed(small_settings(), "training", channels_last=True, max_steps=2)
    started = [event for event in events_of(runs_dir, settings) if isinstance(event, RunStarted)]
    (note,) = started[0].notes
    assert "slower: no C++ compiler was found" in note
