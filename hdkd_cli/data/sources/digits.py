"""The bundled data set: 1,797 real handwritten digits (digits.LICENSE.txt)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hdkd_cli.data.sources.base import ArraySource
from hdkd_cli.errors import DataError
from hdkd_cli.files import read_tensors
from hdkd_cli.settings.data import DataSettings


def open_digits(settings: DataSettings) -> ArraySource:  # noqa: ARG001
    """The digits as 8×8 RGB; 36 images of each class are always the test part.

    Raises:
        DataError: the installed file is damaged.
    """
    tensors, _ = read_tensors(Path(__file__).with_name("digits.safetensors"), DataError)

    def part(name: str) -> tuple[NDArray[np.uint8], Tensor]:
        grey_NHW = (tensors[f"{name}.images"].numpy() * (255 / 16)).round().astype(np.uint8)
        return np.repeat(grey_NHW[..., None], 3, axis=-1), tensors[f"{name}.labels"]

    return ArraySource.from_parts("0123456789", part("train"), part("test"))
