"""`training.precision = "auto"`: what is tried, what is taken, and that trying leaves no trace."""

from __future__ import annotations

import fcntl
import json
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import changed, small_settings

import hdkd_cli
from hdkd_cli.data import open_data
from hdkd_cli.runs.metrics import read_metrics
from hdkd_cli.training import arithmetic
from hdkd_cli.training.arithmetic import Arithmetic, choose, decide, possible
from hdkd_cli.training.building import build_state
from hdkd_cli.training.distributed import Ranks

CPU = torch.device("cpu")
ALL = [Arithmetic(p, layout) for p in ("fp32", "bf16") for layout in (False, True)]


def open_settings():
    """What leaves the arithmetic open."""
    return changed(small_settings(), "training", precision="auto")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "hdkd" / "arithmetic"


@pytest.fixture
def bf16_units(monkeypatch):
    monkeypatch.setattr(arithmetic, "has_bf16_units", lambda: True)


@pytest.fixture
def trials(monkeypatch, bf16_units):
    """Every run is worth a trial, in which bf16 NHWC is twice as fast; the arms of all trials."""
    seen = []

    def twice_as_fast(arms, device, *, seconds, most_rounds):
        for run in arms.values():
            run()
        seen.append(list(arms))
        return {arm: np.full(3, 1.0 if arm == "bf16 NHWC" else 2.0) for arm in arms}

    monkeypatch.setattr(arithmetic, "LEAST_MACS", 0)
    monkeypatch.setattr(arithmetic, "LEAST_STEPS", 0)
    monkeypatch.setattr(arithmetic, "in_turn", twice_as_fast)
    return seen


def begun(settings):
    data = open_data(settings.data)
    return settings, data, build_state(settings, data, CPU)


@given(
    st.lists(st.floats(0.1, 10), min_size=1, max_size=4).flatmap(
        lambda medians: st.tuples(
            st.just(medians), st.lists(st.floats(0.5, 2), min_size=1, max_size=5)
        )
    )
)
def test_what_is_taken_is_worth_it_over_all_that_is_simpler(drawn):
    medians, rounds = drawn
    seconds = {str(arm): median * np.array(rounds) for arm, median in enumerate(medians)}
    taken = int(choose(seconds))
    for simpler in medians[:taken]:
        # ten per cent over what was best so far, which was no slower than what came before
        assert simpler / medians[taken] >= 1.1 * (1 - 1e-9) or simpler > min(medians[:taken])
    assert medians[taken] <= medians[0]
    for later in medians[taken + 1 :]:
        assert medians[taken] / later < 1.1 * (1 + 1e-9)


def test_a_slow_moment_hits_a_whole_round_and_changes_nothing():
    seconds = {"fp32 NCHW": np.array([1.0, 9.0, 1.0]), "fp32 NHWC": np.array([0.5, 4.5, 0.5])}
    assert choose(seconds) == "fp32 NHWC"


def test_arms_are_what_is_left_open(bf16_units, monkeypatch):
    settings = open_settings()
    assert possible(settings) == ALL
    assert possible(changed(settings, "training", precision="fp32")) == ALL[:2]
    assert possible(changed(settings, "training", channels_last=True)) == ALL[1::2]
    monkeypatch.setattr(arithmetic, "has_bf16_units", lambda: False)
    assert possible(settings) == ALL[:2]


@pytest.mark.parametrize(
    ("change", "ranks", "said"),
    [
        ({}, 1, "a short run"),
        ({"max_steps": 1}, 1, "a short run"),
        ({"compile": True}, 1, "compiled"),
        ({}, 2, "several processes"),
    ],
)
def test_nothing_is_tried_where_it_would_not_pay(
    change, ranks, said, bf16_units, monkeypatch, cache
):
    monkeypatch.setattr(arithmetic, "LEAST_STEPS", 0)
    settings, data, state = begun(changed(open_settings(), "training", **change))
    state.ranks = Ranks(0, ranks)
    decision = decide(settings, data, state)
    assert decision.origin == {"training.precision": f"auto ({said})"}
    assert decision.settings == changed(settings, "training", precision="fp32")
    assert decision.settings.training.channels_last is None
    assert decision.notes == ()
    assert not cache.exists()


def test_what_is_given_is_not_decided(trials):
    given = changed(open_settings(), "training", precision="fp32", channels_last=False)
    decision = decide(*begun(given))
    assert decision.settings == given
    assert decision.origin == {}
    assert trials == []


def test_a_trial_is_told_kept_and_leaves_everything_as_found(trials, cache):
    settings, data, state = begun(open_settings())
    before = {name: t.clone() for name, t in state.net.state_dict().items()}
    random = torch.get_rng_state()
    decision = decide(settings, data, state)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(t, before[name]) for name, t in state.net.state_dict().items())
    assert state.step == 0
    assert trials == [[str(arm) for arm in ALL]]
    training = decision.settings.training
    assert (training.precision, training.channels_last) == ("bf16", True)
    assert set(decision.origin) == {"training.precision", "training.channels_last"}
    (note,) = decision.notes
    assert note.startswith("training in bf16 NHWC: fp32 NHWC 1.00, bf16 NCHW 1.00, bf16 NHWC 2.00")

    again = decide(settings, data, state)
    assert again.settings == decision.settings
    assert "an earlier trial" in again.notes[0]
    assert len(trials) == 1

    # another batch is another question
    decide(*begun(changed(settings, "training", batch_size=8, precision="fp32")))
    assert trials[1:] == [["fp32 NCHW", "fp32 NHWC"]]
    assert len(list(cache.glob("*.json"))) == 2


def test_what_is_kept_but_damaged_is_tried_again(trials, cache):
    arguments = begun(open_settings())
    decide(*arguments)
    (kept,) = cache.glob("*.json")
    kept.write_text(kept.read_text()[:-20])
    decide(*arguments)
    assert len(trials) == 2
    assert json.loads(kept.read_text())["taken"] == "bf16 NHWC"


def test_a_cache_that_cannot_be_written_only_costs_a_trial(trials, cache):
    cache.parent.parent.joinpath("hdkd").write_text("in the way")
    arguments = begun(open_settings())
    assert decide(*arguments).settings == decide(*arguments).settings
    assert len(trials) == 2


def test_runs_that_begin_together_try_once(trials, cache):
    arguments = begun(open_settings())
    decide(*arguments)
    (kept,) = cache.glob("*.json")
    found = kept.read_text()
    kept.unlink()
    with kept.with_suffix(".lock").open() as lock:  # another run tries
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=decide, args=arguments)
        waiting.start()
        waiting.join(timeout=1.0)
        assert waiting.is_alive()
        kept.write_text(found)
    waiting.join()
    assert len(trials) == 1


def test_a_decided_run_is_the_run_whose_settings_say_so(trials, runs_dir):
    small = {
        "model.exits": 3, "model.channels": 8, "model.growth": 4, "data.train_per_class": 10,
        "data.val_per_class": 5, "training.batch_size": 16, "training.max_steps": 3,
        "training.log_every": 1, "weights.interval": 2, "training.precision": "auto",
    }  # fmt: skip
    said = {"training.precision": "bf16", "training.channels_last": True}
    common = {"runs_dir": runs_dir, "device": "cpu"}
    decided = hdkd_cli.train("digits", set=small, name="decided", **common)
    asked = hdkd_cli.train("digits", set=small | said, name="asked", **common)
    assert len(trials) == 1
    assert decided.folder.settings() == asked.folder.settings()
    assert decided.folder.info().origin["training.precision"].startswith("auto (a trial")
    steps = [
        [{**r, "images_per_s": 0} for r in read_metrics(run.folder.metrics) if r["event"] == "step"]
        for run in (decided, asked)
    ]
    assert steps[0] == steps[1]
    assert len(steps[0]) == 3

    trials.clear()
    on = hdkd_cli.resume(decided.folder.path, set={"training.max_steps": 4}, device="cpu")
    assert on.folder.settings().training.precision == "bf16"
    assert trials == []
