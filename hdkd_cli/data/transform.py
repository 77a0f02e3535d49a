"""The evaluation transform: RGB, shorter side resized, centre cropped, normalised.

There is one code path for every image, whether it comes from memory, a loader process or the
``predict`` command, so the same picture always gives the same numbers.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from hdkd_cli.data.pictures import FORMATS, MAX_ASPECT, framed, to_rgb
from hdkd_cli.errors import DataError
from hdkd_cli.settings.data import DataSettings

T = TypeVar("T")


def read_image(path: Path) -> Image.Image:
    """Decode an image file into RGB.

    Raises:
        DataError: the file is missing, empty, truncated or not an image, or is no regular file;
            the message names it.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block until it is written to
            raise DataError("is not a regular file")
        return decode_image(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as problem:
        raise DataError(f"{path}: {problem.strerror or problem}") from None
    except DataError as problem:
        raise DataError(f"{path}: {problem}") from None


def decode_image(file: Path | BinaryIO) -> Image.Image:
    """Decode an image into RGB.

    Raises:
        DataError: it cannot be read; the message does not name it.
        OSError: it cannot be opened.
    """
    return _with_image(file, to_rgb)


def check_header(file: Path | BinaryIO) -> None:
    """Read the header of an image, not its pixels.

    Raises:
        DataError: it cannot be read; the message does not name it.
        OSError: it cannot be opened.
    """
    _with_image(file, lambda _: None)


def _with_image(file: Path | BinaryIO, use: Callable[[Image.Image], T]) -> T:
    stream = file.open("rb") if isinstance(file, Path) else file
    with stream:
        try:
            with Image.open(stream, formats=FORMATS) as image:
                width, height = image.size
                if max(width, height) > MAX_ASPECT * min(width, height):
                    raise DataError(
                        f"is {width}×{height} pixels: a side of more than {MAX_ASPECT} times the "
                        "other is refused"
                    )
                return use(image)
        except (DataError, MemoryError):
            raise
        except UnidentifiedImageError:
            raise DataError(f"not a readable image (none of {', '.join(FORMATS)})") from None
        except Exception as problem:  # Pillow's decoders raise whatever the bytes lead them to
            raise DataError(f"not a readable image ({_first_line(problem)})") from None


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


def _first_line(problem: Exception) -> str:
    return (str(problem) or type(problem).__name__).splitlines()[0]
