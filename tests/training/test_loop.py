"""The loop: same seed same bits, resume anywhere same bits, nothing saved after divergence."""

import os
import signal
from pathlib import Path

import pytest
import torch
from small_runs import changed, small_settings

from hdkd_cli.data import open_data
from hdkd_cli.errors import CheckpointError, DivergedError, InterruptedRun
from hdkd_cli.files import read_tensors
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.runs.metrics import read_metrics
from hdkd_cli.settings.schema import OptimizerSettings, Settings
from hdkd_cli.training import loop
from hdkd_cli.training.events import Event, StepLogged
from hdkd_cli.training.session import run_training
from hdkd_cli.training.step import take_step

CPU = torch.device("cpu")


def begin(runs_dir: Path, settings: Settings, name: str | None = None) -> RunFolder:
    return RunFolder.create(runs_dir, "test", settings, name=name)


def go(run: RunFolder, settings: Settings, *, resume: bool = False, sink=None) -> bool:
    sinks = [sink] if sink else []
    return run_training(run, settings, open_data(settings.data), CPU, sinks=sinks, resume=resume)


def final_tensors(run: RunFolder) -> dict[str, torch.Tensor]:
    checkpoint = run.checkpoint()
    return {
        f"{group}/{name}": tensor
        for group in ("model", "optimizer", "weights")
        for name, tensor in checkpoint.tensors(group)[0].items()
    }


def assert_same_bits(a: RunFolder, b: RunFolder) -> None:
    first, second = final_tensors(a), final_tensors(b)
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def test_the_same_seed_twice_gives_the_same_bits_and_another_seed_does_not(runs_dir, whole_run):
    settings = small_settings()
    first, second = whole_run(settings), begin(runs_dir, settings)
    go(second, settings)
    assert_same_bits(first, second)

    other_settings = changed(settings, "training", seed=1)
    other = begin(runs_dir, other_settings)
    go(other, other_settings)
    with pytest.raises(AssertionError):
        assert_same_bits(first, other)


class StopAt:
    """Sends the process the signal a person would, once a step has been logged."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepLogged) and event.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("step", [1, 5, 6, 7])  # an epoch has 6 steps, weights move every second
def test_interrupted_anywhere_and_resumed_gives_the_same_bits(runs_dir, whole_run, step):
    settings = changed(small_settings(), "training", log_every=1)
    whole, parts = whole_run(settings), begin(runs_dir, settings)
    with pytest.raises(InterruptedRun) as stopped:
        go(parts, settings, sink=StopAt(step))
    assert stopped.value.exit_code == 143
    assert parts.info().status == "interrupted"
    assert parts.checkpoint().step >= step
    go(parts, settings, resume=True)
    assert parts.info().status == "finished"
    assert_same_bits(whole, parts)

    steps = [[r["step"] for r in read_metrics(run.metrics) if r["event"] == "step"]
             for run in (whole, parts)]  # fmt: skip
    assert steps[0] == steps[1] == list(range(1, 13))


def test_max_steps_ends_early_and_can_be_raised(runs_dir, whole_run):
    settings = small_settings()
    whole, parts = whole_run(settings), begin(runs_dir, settings)
    go(parts, changed(settings, "training", max_steps=4))
    assert parts.checkpoint().step == 4
    go(parts, settings, resume=True)
    assert_same_bits(whole, parts)


def test_a_run_without_checkpoint_starts_again_in_its_folder(runs_dir, whole_run):
    settings = small_settings()
    whole, again = whole_run(settings), begin(runs_dir, settings)
    again.metrics.write_text('{"event": "step", "step": 1}\n')  # killed before the first save
    go(again, settings, resume=True)
    assert_same_bits(whole, again)
    assert next(read_metrics(again.metrics))["event"] == "run_started"


def test_divergence_ends_the_run_and_names_the_last_good_checkpoint(runs_dir):
    settings = small_settings()
    run = begin(runs_dir, settings)
    go(run, changed(settings, "training", max_steps=6))
    good = final_tensors(run)
    exploding = changed(settings, "optimizer", lr=1e30)
    with pytest.raises(DivergedError, match=r"step \d+.*step-6"):
        go(run, exploding, resume=True)
    assert run.info().status == "diverged"
    assert run.info().exit_code == 4
    after = final_tensors(run)
    assert all(torch.equal(good[name], after[name]) for name in good)


def test_accumulation_covers_the_batch_once(runs_dir):
    """Frozen statistics aside, two halves are one batch: only BatchNorm sees the difference."""
    settings = small_settings()
    halves = changed(settings, "training", accumulate=2, max_steps=1)
    whole = changed(settings, "training", max_steps=1)
    logged: list[StepLogged] = []
    for s in (whole, halves):
        run = begin(runs_dir, s)
        go(run, s, sink=lambda e: logged.append(e) if isinstance(e, StepLogged) else None)
    assert logged[0].terms_T == pytest.approx(logged[1].terms_T, rel=0.1)
    assert logged[0].terms_T != logged[1].terms_T


def test_init_from_copies_what_fits_and_says_so(runs_dir):
    settings = small_settings()
    source = begin(runs_dir, settings)
    go(source, changed(settings, "training", max_steps=3))
    from_run = changed(settings, "training", max_steps=1, init_from=str(source.path))
    frozen = from_run.model_copy(update={"optimizer": OptimizerSettings(lr=1e-30, weight_decay=0)})
    run = begin(runs_dir, frozen)
    go(run, frozen)
    source_tensors, _ = source.checkpoint().tensors("model")
    tensors, _ = run.checkpoint().tensors("model")
    parameters = [n for n in tensors if "running" not in n and "tracked" not in n]
    assert all(torch.equal(source_tensors[n], tensors[n]) for n in parameters)
    assert "initialised" in next(read_metrics(run.metrics))["notes"][0]


def test_a_checkpoint_of_another_architecture_is_refused(runs_dir):
    settings = small_settings()
    run = begin(runs_dir, settings)
    go(run, changed(settings, "training", max_steps=1))
    with pytest.raises(CheckpointError, match="another network"):
        go(run, changed(settings, "model", growth=6), resume=True)


def test_the_checkpoint_holds_no_pickle(runs_dir):
    settings = changed(small_settings(), "training", max_steps=1)
    run = begin(runs_dir, settings)
    go(run, settings)
    for path in run.checkpoint().path.iterdir():
        assert path.suffix in {".safetensors", ".json"}
        if path.suffix == ".safetensors":
            assert read_tensors(path, CheckpointError)[0]


class StopsAfter:
    """``take_step``, after which a signal arrives in the middle of a stretch."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self, *args) -> None:
        take_step(*args)
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("step", [1, 4, 5, 11])  # records at 3, 6, 9, 12; updates at 2, 4, ..
def test_a_stretch_that_was_interrupted_is_logged_as_if_it_was_not(
    runs_dir, whole_run, monkeypatch, step
):
    settings = small_settings()
    whole, parts = whole_run(settings), begin(runs_dir, settings)
    monkeypatch.setattr(loop, "take_step", StopsAfter(step))
    with pytest.raises(InterruptedRun):
        go(parts, settings)
    monkeypatch.undo()
    go(parts, settings, resume=True)

    def told(run, kind):
        records = [r for r in read_metrics(run.metrics) if r["event"] == kind]
        return [r | {"images_per_s": None} for r in records]

    assert told(parts, "step") == told(whole, "step")
    assert told(parts, "weights_updated") == told(whole, "weights_updated")
    assert all(r["images_per_s"] > 0 for r in read_metrics(parts.metrics) if r["event"] == "step")


def test_a_run_whose_time_is_up_is_saved_and_goes_on_to_the_same_bits(runs_dir, whole_run):
    settings = small_settings()
    whole, parts = whole_run(settings), begin(runs_dir, settings)
    short = changed(settings, "training", max_minutes=1e-9)
    events: list[Event] = []
    assert not go(parts, short, sink=events.append)
    assert parts.info().status == "paused"
    assert parts.info().exit_code == 0
    assert events[-1].status == "paused"
    assert not go(parts, short, resume=True)
    assert parts.checkpoint().step == 2
    assert go(parts, settings, resume=True)
    assert parts.info().status == "finished"
    assert_same_bits(whole, parts)
