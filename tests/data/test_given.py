"""Validation images that a file lists, and none at all."""

import pytest
import torch
from pictures import folder_settings, two_classes

from hdkd_cli.data import open_data
from hdkd_cli.errors import DataError, SettingsError
from hdkd_cli.files import write_tensors
from hdkd_cli.settings.layers import resolve


@pytest.fixture
def root(tmp_path):
    return two_classes(tmp_path / "data", train=10, test=4)


def val_keys(root, file, **changes):
    data = open_data(folder_settings(root, val_indices=str(file), **changes))
    source = data.images.source
    everywhere = torch.cat([data.splits[role].indices_N for role in ("train", "val", "reserve")])
    assert sorted(everywhere.tolist()) == list(source.parts["train"])
    return [source.keys[i] for i in data.splits["val"].indices_N.tolist()]


def test_numbers_names_and_tensors_say_the_same(root, tmp_path):
    expected = ["train/cat/003.png", "train/dog/000.png", "train/dog/009.png"]
    numbers, names = tmp_path / "numbers.txt", tmp_path / "names.txt"
    numbers.write_text("19\n3\n\n10\n")
    names.write_text("\n".join(expected))
    write_tensors(tmp_path / "t.safetensors", {"val": torch.tensor([3, 10, 19])})
    for file in (numbers, names, tmp_path / "t.safetensors"):
        assert val_keys(root, file) == expected
    assert val_keys(root, numbers, train_per_class=2) == expected


def test_a_file_beside_the_images_moves_with_them(root, tmp_path):
    (root / "val.txt").write_text("0\n")
    assert val_keys(root, "val.txt") == ["train/cat/000.png"]
    assert val_keys(root.rename(tmp_path / "moved"), "val.txt") == ["train/cat/000.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"20\n", "entry 1: '20' is none of the 20 training images"),
        (b"3\n-1\n", "entry 2: '-1' is none"),
        (b"test/cat/000.png\n", "none of the 20"),
        (b"4\n5\n4\n", "entry 3: '4' is listed twice"),
        (b"4\ntrain/cat/004.png\n", "listed twice"),
        (b"9" * 5000, "entry 1: '9999"),
        (b"\x80\x02]q\x00.", "pickle"),
        (b"PK\x03\x04torch", "pickle"),
    ],
)
def test_what_is_no_list_of_training_images(root, tmp_path, text, message):
    (tmp_path / "index").write_bytes(text)
    with pytest.raises(DataError, match=message):
        val_keys(root, tmp_path / "index")


def test_files_that_cannot_be_used(root, tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file"):
        val_keys(root, tmp_path / "nowhere")
    write_tensors(tmp_path / "f.safetensors", {"val": torch.tensor([0.5])})
    with pytest.raises(DataError, match="one tensor of whole numbers"):
        val_keys(root, tmp_path / "f.safetensors")


def test_all_images_can_train(root):
    data = open_data(folder_settings(root, val_per_class=0))
    assert {role: len(split) for role, split in data.splits.items() if len(split)} == {
        "train": 20,
        "test": 8,
    }


@pytest.mark.parametrize(
    "assignments", [["method=hdkd"], ["method=joint", "data.calibration_fraction=0.5"]]
)
def test_what_reads_validation_images_needs_some(assignments):
    none = ["data.val_per_class=0", *assignments]
    with pytest.raises(SettingsError, match=r"needs validation images; data\.val_per_class = 0"):
        resolve(environment={}, assignments=none)
    assert resolve(environment={}, assignments=["data.val_per_class=0", "method=joint"])
    assert resolve(environment={}, assignments=[*none, "data.val_indices=some.txt"])
