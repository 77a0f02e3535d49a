"""The bundled data set: 1,797 real handwritten digits (digits.LICENSE.txt)."""

from __future__ import annotations

from pathlib import Path

import torch

from hdkd_cli.data.source import ArraySource
from hdkd_cli.errors import DataError
from hdkd_cli.files import read_tensors


def open_digits() -> ArraySource:
    """The digits as 8×8 RGB; 36 images of each class are always the test part.

    Raises:
        DataError: the installed file is damaged.
    """
    tensors, _ = read_tensors(Path(__file__).with_name("digits.safetensors"), DataError)
    train, test = tensors["train.labels"], tensors["test.labels"]
    ink_NHW = torch.cat([tensors["train.images"], tensors["test.images"]])  # 0..16
    grey_NHW = ink_NHW.to(torch.float32).mul_(255 / 16).round_().to(torch.uint8)
    return ArraySource(
        classes=tuple("0123456789"),
        keys=(*(f"train/{i:04}" for i in range(len(train))), *(f"test/{i:04}" for i in range(len(test)))),
        labels_N=torch.cat([train, test]),
        parts={"train": range(len(train)), "test": range(len(train), len(train) + len(test))},
        pixels_NHW3=grey_NHW.unsqueeze(-1).repeat(1, 1, 1, 3).numpy(),
    )
