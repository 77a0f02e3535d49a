"""Checkpoints: whole or not there, verified, pruned."""

import errno
import json
import pickle
from pathlib import Path

import pytest
import torch

from hdkd_cli import files
from hdkd_cli.errors import CheckpointError
from hdkd_cli.runs.checkpoints import (
    Checkpoint,
    Progress,
    complete_checkpoints,
    discard_leftovers,
    save_checkpoint,
)


def save(folder: Path, step: int, keep: int = 2, **options: int) -> Checkpoint:
    tensors = {"a": torch.arange(6.0).reshape(2, 3) + step, "n": torch.tensor(step)}
    groups = {"model": tensors, "optimizer": {"m": torch.ones(3)}, "weights": {"w": torch.zeros(2)}}
    state = {"step": step, "metrics_bytes": 7}
    return save_checkpoint(folder, step, groups, state, architecture="net", keep=keep, **options)


def test_reads_back_what_was_written(tmp_path):
    save(tmp_path, 5)
    checkpoint = Checkpoint.open(tmp_path / "last")
    tensors, metadata = checkpoint.tensors("model")
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3) + 5)
    assert tensors["n"].dtype == torch.int64
    assert metadata == {"architecture": "net"}
    assert checkpoint.state() == Progress(step=5, metrics_bytes=7)
    assert checkpoint.step == 5
    assert checkpoint.model_sha256 == files.sha256_file(tmp_path / "step-5" / "model.safetensors")


def test_keeps_the_newest_and_last_points_at_it(tmp_path):
    for step in (1, 2, 10):
        save(tmp_path, step)
    assert [c.step for c in complete_checkpoints(tmp_path)] == [2, 10]
    assert (tmp_path / "last").resolve().name == "step-10"
    save(tmp_path, 11, keep=1)
    assert [c.step for c in complete_checkpoints(tmp_path)] == [11]


def test_milestones_are_kept(tmp_path):
    for step in range(1, 12):
        save(tmp_path, step, keep=2, milestone_steps=4)
    assert [c.step for c in complete_checkpoints(tmp_path)] == [4, 8, 10, 11]


def test_the_same_step_can_be_written_again(tmp_path):
    save(tmp_path, 3)
    save(tmp_path, 3)
    assert Checkpoint.open(tmp_path / "step-3").is_whole()


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "weights.safetensors"])
def test_altered_truncated_or_missing_files_are_refused(tmp_path, name):
    checkpoint = save(tmp_path, 1)
    path = checkpoint.path / name
    whole = path.read_bytes()

    def read() -> None:
        for group in ("model", "weights"):
            checkpoint.tensors(group)
        checkpoint.state()

    path.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=r"truncated\?\)$"):
        read()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"altered or damaged\)$"):
        read()
    assert not checkpoint.is_whole()
    path.unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        read()
    assert not checkpoint.is_whole()


def test_the_checkpoint_before_a_damaged_one_is_offered_if_it_is_whole(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step, keep=3)
    for step in (3, 2):
        (tmp_path / f"step-{step}" / "model.safetensors").write_bytes(b"damaged")
        with pytest.raises(CheckpointError, match=rf"whole: {tmp_path}/step-{step - 1}$"):
            Checkpoint.open(tmp_path / "step-3").tensors("model")
        save(tmp_path, 1, keep=3)
    (tmp_path / "step-1" / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"truncated\?\)$"):
        Checkpoint.open(tmp_path / "step-3").tensors("model")


def test_a_pickle_is_named_as_one_and_not_opened(tmp_path):
    checkpoint = save(tmp_path, 1)
    path = checkpoint.path / "model.safetensors"
    path.write_bytes(pickle.dumps({"a": [1.0]}))
    manifest = json.loads((checkpoint.path / "manifest.json").read_text())
    manifest["files"]["model.safetensors"] = {
        "sha256": files.sha256_file(path),
        "bytes": path.stat().st_size,
    }
    (checkpoint.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="pickle"):
        Checkpoint.open(checkpoint.path).tensors("model")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema":"hdkd/checkpoint/1"}'])
def test_a_damaged_manifest_is_refused(tmp_path, text):
    checkpoint = save(tmp_path, 1)
    (checkpoint.path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        Checkpoint.open(checkpoint.path)
    assert complete_checkpoints(tmp_path) == []


def test_a_full_disk_leaves_the_last_checkpoint_and_no_litter(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def full(path, record):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hdkd_cli.runs.checkpoints.write_json", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last", "step-1"]
    assert Checkpoint.open(tmp_path / "last").is_whole()


@pytest.mark.parametrize("call", range(11))  # two for each of five files, one for the link
def test_a_failing_fsync_leaves_the_last_checkpoint_usable(tmp_path, monkeypatch, call):
    save(tmp_path, 1)
    calls = iter(range(1000))

    def failing(handle):
        if next(calls) == call:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.fsync", failing)
    with pytest.raises(OSError, match="Input/output"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert Checkpoint.open(tmp_path / "last").is_whole()
    discard_leftovers(tmp_path, newer_than=1)
    assert save(tmp_path, 2).is_whole()
    assert (tmp_path / "last").resolve().name == "step-2"


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / ".step-3.abc").mkdir()
    (tmp_path / ".step-3.abc" / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".last.17.tmp").symlink_to("step-3")
    discard_leftovers(tmp_path, newer_than=1)
    assert sorted(p.name for p in tmp_path.iterdir() if not p.is_symlink()) == ["step-1"]
