"""What a rank knows and refuses, without starting any."""

import os
import socket

import pytest
import torch
from several_ranks import plain_settings
from small_runs import changed, small_settings

from hdkd_cli.data import open_data
from hdkd_cli.errors import SettingsError, UsageError
from hdkd_cli.library.job import goes_on
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.training.building import build_state
from hdkd_cli.training.distributed import ALONE, Launch, Ranks, joined
from hdkd_cli.training.session import check

CPU = torch.device("cpu")
SMALL = small_settings()


@pytest.mark.parametrize("size", [None, "1"])
def test_one_process_needs_no_process_group(monkeypatch, size):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size is not None:
        monkeypatch.setenv("WORLD_SIZE", size)
    with joined() as ranks:
        assert ranks is ALONE
        assert not torch.distributed.is_initialized()
        tensor = torch.ones(3)
        assert ranks.mean(tensor) is tensor
        assert ranks.text("a run") == "a run"
        assert ranks.largest(7) == 7
        assert ranks.in_turn(lambda: "done") == "done"
        with pytest.raises(FileNotFoundError):
            ranks.together(lambda: os.stat("/nowhere/at/all"))  # noqa: PTH116


def test_half_an_environment_is_a_usage_error(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UsageError, match="torchrun"), joined():
        pass


@pytest.mark.parametrize(
    ("settings", "ranks", "message"),
    [
        (changed(SMALL, "training", batch_size=16), 3, r"batch_size = 16 .*3 ranks"),
        (changed(SMALL, "training", batch_size=16, accumulate=4), 8, r"8 ranks × .*accumulate = 4"),
        (changed(SMALL, "weights", val_batch_size=15), 2, r"cannot share 15 val images"),
        # 5 images per class: an update would read all 50
        (changed(SMALL, "weights", val_batch_size=64), 4, r"cannot share 50 val images"),
    ],
)
def test_batches_without_equal_shares_are_refused(settings, ranks, message):
    data = open_data(settings.data)
    with pytest.raises(SettingsError, match=message):
        check(settings, data, CPU, Ranks(0, ranks))
    check(settings, data, CPU)


def test_a_state_of_many_ranks_averages_the_hypergradient():
    settings = plain_settings()
    data = open_data(settings.data)
    alone = build_state(settings, data, CPU)
    ranks = Ranks(1, 4)
    state = build_state(settings, data, CPU, ranks)
    assert alone.harmonizer is not None
    assert state.harmonizer is not None
    assert alone.harmonizer.mean is None
    assert state.harmonizer.mean == ranks.mean


def test_every_rank_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    devices = [Ranks(r, 4, local_rank=r % 2).own_device(torch.device("cuda")) for r in range(4)]
    assert [d.index for d in devices] == taken == [0, 1, 0, 1]
    assert Ranks(1, 2, 1).own_device(CPU) == CPU
    assert ALONE.own_device(torch.device("cuda:1")) == torch.device("cuda:1")
    with pytest.raises(SettingsError, match="2 usable CUDA devices"):
        Ranks(2, 3, 2).own_device(torch.device("cuda"))
    for name in ("cuda:0", "mps"):
        with pytest.raises(SettingsError, match="cpu or cuda"):
            Ranks(0, 2).own_device(torch.device(name))


def test_a_job_has_a_name_that_outlives_its_processes(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert Launch.of_environment() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-7")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert Launch.of_environment() == Launch("job-7", 2, lasting=True)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    launch = Launch.of_environment()
    assert launch is not None
    assert not launch.lasting
    assert socket.gethostname() in launch.id


@pytest.mark.parametrize(
    ("launch", "status", "expected"),
    [
        (Launch("job", 0, lasting=True), "failed", True),  # another machine, or requeued
        (Launch("job", 0, lasting=True), "finished", False),  # run once more
        (Launch("job", 1, lasting=True), "finished", True),  # a rank failed when all was done
        (Launch("job", 1, lasting=False), "running", True),
        (Launch("job", 0, lasting=False), "running", False),  # another job of the same name
    ],
)
def test_a_restart_goes_on_and_a_new_start_does_not(runs_dir, launch, status, expected):
    settings = small_settings()
    run = RunFolder.create(runs_dir, "test", settings, launch=launch.id)
    run.update_info(status=status)
    assert goes_on(launch, run, settings) is expected
    assert not goes_on(launch, run, changed(SMALL, "training", seed=1))
    assert goes_on(launch, run, changed(SMALL, "training", max_steps=5)) is expected
