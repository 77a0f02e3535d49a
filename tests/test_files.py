"""Files are whole or not there, and pickles stay closed."""

import os
import pickle
import stat

import pytest
import torch

from hdkd_cli.errors import ScoresError
from hdkd_cli.files import (
    atomic_folder,
    atomic_path,
    point_link,
    read_tensors,
    write_tensors,
    write_text,
)


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "f.txt"
    write_text(path, "old")

    def interrupted():
        with atomic_path(path) as temporary:
            temporary.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f.txt"]


def test_a_folder_is_whole_or_not_there(tmp_path):
    path = tmp_path / "deep" / "out"

    def interrupted():
        with atomic_folder(path) as temporary:
            write_text(temporary / "a", "half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(path.parent.iterdir())

    path.mkdir()  # an empty folder is taken
    old = os.umask(0o027)
    try:
        with atomic_folder(path) as temporary:
            write_text(temporary / "a", "whole")
            assert not list(path.iterdir())
    finally:
        os.umask(old)
    assert (path / "a").read_text() == "whole"
    assert stat.S_IMODE(path.stat().st_mode) == 0o750

    with pytest.raises(OSError, match="not empty"), atomic_folder(path) as temporary:
        write_text(temporary / "b", "another")
    assert [p.name for p in path.parent.rglob("*")] == ["out", "a"]


def test_files_get_the_usual_permissions(tmp_path):
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "f", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def test_links_are_swapped(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        point_link(tmp_path / "last", name)
        assert (tmp_path / "last").read_text() == name


def test_tensors_round_trip_whatever_their_layout(tmp_path):
    tensors = {
        "nhwc": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(7),
        "view": torch.arange(12.0).reshape(3, 4)[:, 1],
    }
    write_tensors(tmp_path / "t.safetensors", tensors, {"about": "ä"})
    back, metadata = read_tensors(tmp_path / "t.safetensors", ScoresError)
    assert metadata == {"about": "ä"}
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("metadata", [None, {}, {"a": "b"}])
def test_no_tensors_round_trip_too(tmp_path, metadata):
    """A run without momentum has nothing of its optimiser to keep."""
    write_tensors(tmp_path / "x.safetensors", {}, metadata)
    assert read_tensors(tmp_path / "x.safetensors", ScoresError) == ({}, metadata or {})


def test_a_file_system_that_is_full_is_an_oserror(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(*args):
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        write_tensors(tmp_path / "t.safetensors", {"a": torch.zeros(1)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "damaged or not a safetensors"),
        (b"\x10\0\0\0\0\0\0\0{", "damaged"),
        (pickle.dumps({"a": 1}), "pickle"),
        (b"PK\x03\x04 a torch.save archive", "pickle"),
    ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path, content, message):
    path = tmp_path / "t.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ScoresError, match=message):
        read_tensors(path, ScoresError)
    with pytest.raises(ScoresError, match="folder"):
        read_tensors(tmp_path, ScoresError)
