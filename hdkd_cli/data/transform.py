"""The evaluation transform: RGB, shorter side resized, centre cropped, normalised.

There is one code path for every image, whether it comes from memory, a loader process or the
``predict`` command, so the same picture always gives the same numbers.
"""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hdkd_cli.data.pictures import NoPicture, framed, read_picture, to_rgb
from hdkd_cli.errors import DataError
from hdkd_cli.settings.data import DataSettings


def read_image(path: Path) -> Image.Image:
    """Decode an image file into RGB.

    Raises:
        DataError: the file is missing, empty, truncated or not an image, or is no regular file;
            the message names it.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block until it is written to
            raise NoPicture("is not a regular file")
        return read_picture(path, to_rgb)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as problem:
        raise DataError(f"{path}: {problem.strerror or problem}") from None
    except NoPicture as problem:
        raise DataError(f"{path}: {problem}") from None


def frame(image: Image.Image, settings: DataSettings) -> Image.Image:
    """Resize the shorter side to ``settings.resize`` and cut out the centre.

    Args:
        image: RGB.
        settings: ``resize``, ``image_size`` and ``interpolation``.

    Returns:
        RGB, ``image_size`` pixels per side.
    """
    return framed(image, settings.shorter_side, settings.image_size, settings.interpolation)


def to_pixels(image: Image.Image) -> Tensor:
    """An RGB image as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


class Normalise:
    """uint8 pixels (..., 3, H, W) → float32 (x / 255 − mean) / std, on ``device``."""

    def __init__(self, settings: DataSettings, device: torch.device) -> None:
        self.mean = torch.tensor(settings.mean, device=device).view(3, 1, 1)
        self.std = torch.tensor(settings.std, device=device).view(3, 1, 1)

    def __call__(self, pixels: Tensor) -> Tensor:
        return pixels.to(torch.float32).div_(255).sub_(self.mean).div_(self.std)
