from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import CPU

from hdkd_cli.data import open_data
from hdkd_cli.data.sources import digits
from hdkd_cli.errors import DataError
from hdkd_cli.settings.data import DataSettings


def test_the_set_is_whole():
    source = digits.open_digits(DataSettings())
    assert source.classes == tuple("0123456789")
    assert len(source.keys) == len(set(source.keys)) == 1797
    # images of each digit in the UCI test file
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert source.labels_N.bincount().tolist() == counts
    of_test = source.labels_N[list(source.parts["test"])]
    assert of_test.bincount().tolist() == [36] * 10
    assert source.pixels_NHW3.shape == (1797, 8, 8, 3)
    assert set(np.unique(source.pixels_NHW3)) == {round(ink * 255 / 16 + 1e-9) for ink in range(17)}
    assert (source.pixels_NHW3 == source.pixels_NHW3[..., :1]).all()
    assert source.pixels_NHW3.mean() / 255 == pytest.approx(4.884165 / 16, abs=2e-4)


def test_first_digit_is_the_published_zero():
    published = [
        [0, 0, 5, 13, 9, 1, 0, 0],
        [0, 0, 13, 15, 10, 15, 5, 0],
        [0, 3, 15, 2, 0, 11, 8, 0],
        [0, 4, 12, 0, 0, 8, 8, 0],
        [0, 5, 8, 0, 0, 9, 8, 0],
        [0, 4, 11, 0, 1, 12, 7, 0],
        [0, 2, 14, 5, 10, 12, 0, 0],
        [0, 0, 6, 13, 10, 0, 0, 0],
    ]
    source = digits.open_digits(DataSettings())
    zero = np.round(np.array(published) * 255 / 16 + 1e-9).astype(np.uint8)
    (place,) = np.nonzero((source.pixels_NHW3[..., 0] == zero).all(axis=(1, 2)))
    assert source.labels_N[place].tolist() == [0]


def test_default_splits():
    data = open_data(DataSettings())
    sizes = {role: len(split) for role, split in data.splits.items()}
    assert sizes == {"train": 1187, "val": 250, "calibration": 0, "reserve": 0, "test": 360}
    batch = next(data.evaluation_batches("test", batch_size=64, device=CPU))
    assert batch.images.shape == (64, 3, 32, 32)
    assert batch.images.dtype == torch.float32
    assert batch.images.mean().abs() < 0.1
    assert 0.9 < batch.images.std() < 1.1


def test_a_damaged_installation_is_reported(tmp_path, monkeypatch):
    whole = Path(digits.__file__).with_name("digits.safetensors").read_bytes()
    (tmp_path / "digits.safetensors").write_bytes(whole[:1000])
    monkeypatch.setattr(digits, "__file__", str(tmp_path / "digits.py"))
    with pytest.raises(DataError, match=r"digits\.safetensors: is damaged"):
        digits.open_digits(DataSettings())
