"""Compiled steps are the same steps: the same losses and weights, the network left as it was."""

import pytest
import torch
from several_ranks import plain_settings
from small_runs import small_settings

from hdkd_cli.data import open_data
from hdkd_cli.errors import SettingsError
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.runs.metrics import read_metrics
from hdkd_cli.settings.schema import OptimizerSettings
from hdkd_cli.training.building import build_state
from hdkd_cli.training.compile import compile_step
from hdkd_cli.training.session import run_training

CPU = torch.device("cpu")
SLOW = OptimizerSettings(lr=1e-3)


def steps_and_notes(runs_dir, settings, device=CPU):
    run = RunFolder.create(runs_dir, "test", settings)
    run_training(run, settings, open_data(settings.data), device, sinks=[])
    records = list(read_metrics(run.metrics))
    return (
        [r for r in records if r["event"] == "step"],
        [r["text"] for r in records if r["event"] == "note"],
    )


def assert_same_series(ours, theirs, rel):
    assert [r["step"] for r in ours] == [r["step"] for r in theirs]
    for a, b in zip(ours, theirs, strict=True):
        # Adam's first updates are all of one size: rounding shows in weights and weighted losses
        for key, tolerance in (("terms_T", rel), ("loss", 10 * rel), ("weights_T", 10 * rel)):
            close = pytest.approx(b[key], rel=tolerance, abs=tolerance)
            assert a[key] == close, (a["step"], key)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's own, from inside its compiler
def test_a_compiled_run_has_the_losses_of_one_that_is_not(runs_dir):
    settings = small_settings(optimizer=SLOW)  # or rounding errors would grow into others
    # with what is hardest to compile: its own rules in both modes
    objective = settings.objective.model_copy(update={"gradient_equilibrium": "state"})
    settings = settings.model_copy(update={"objective": objective})
    training = settings.training.model_copy(update={"compile": True})
    plain, _ = steps_and_notes(runs_dir, settings)
    compiled, notes = steps_and_notes(runs_dir, settings.model_copy(update={"training": training}))
    assert_same_series(compiled, plain, 1e-3)
    assert plain[0]["weights_T"] != plain[-1]["weights_T"]
    assert [note.split()[0] for note in notes] == ["compiling", "compiled"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_compiling_changes_nothing_that_trains():
    settings = small_settings()
    state = build_state(settings, open_data(settings.data), CPU)
    before = {name: t.clone() for name, t in state.net.state_dict().items()}
    seconds = compile_step(state)
    assert seconds > 0
    assert state.forward is not state.net
    for name, tensor in state.net.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is not None and not p.grad.any() for p in state.net.parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_without_a_compiler_one_line_says_so(monkeypatch):
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(config, "force_disable_caches", True)
    settings = plain_settings(compile=True)
    state = build_state(settings, open_data(settings.data), CPU)
    with pytest.raises(SettingsError, match=r"training\.compile: ") as caught:
        compile_step(state)
    assert "\n" not in str(caught.value)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("default")
def test_replayed_updates_are_the_updates(runs_dir):
    settings = small_settings(optimizer=SLOW)
    cuda = torch.device("cuda", 0)
    training = settings.training.model_copy(update={"compile": True, "epochs": 6})
    longer = settings.training.model_copy(update={"epochs": 6})
    eager, _ = steps_and_notes(runs_dir, settings.model_copy(update={"training": longer}), cuda)
    graphs, _ = steps_and_notes(runs_dir, settings.model_copy(update={"training": training}), cuda)
    assert_same_series(graphs, eager, 1e-2)
