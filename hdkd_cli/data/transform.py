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
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from hdkd_cli.errors import DataError
from hdkd_cli.settings.schema import DataSettings

FORMATS = ("PNG", "JPEG", "BMP", "DIB", "WEBP", "PPM", "TIFF", "GIF")
"""What Pillow may take a file for, whatever its name: its other readers are old, rare, or start
programs (PostScript)."""
MAX_ASPECT = 1000
"""Longer side over shorter side of an image that is read: of more, a crop shows next to nothing."""
STRIP = 64
"""From this aspect on, only what is cut out is resized, not the whole strip."""
ORIENTATION = 0x0112
"""Exif's tag for how a camera was held."""

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


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB, upright.

    An Exif orientation is applied. Transparency is dropped, not composed. Of 16-bit grey the upper
    8 bits are kept.
    """
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey; mode I is how some Pillow versions open it
        grey_HW = np.asarray(image).astype(np.int64).clip(0, 0xFFFF) >> 8
        image = Image.fromarray(grey_HW.astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns
    return image.convert("RGB")


def frame(image: Image.Image, settings: DataSettings) -> Image.Image:
    """Resize the shorter side to ``settings.resize`` and cut out the centre.

    With antialiasing; the arithmetic of torchvision's ``Resize`` and ``CenterCrop``.

    Args:
        image: RGB.
        settings: ``resize``, ``image_size`` and ``interpolation``.

    Returns:
        RGB, ``image_size`` pixels per side.
    """
    short, size = settings.shorter_side, settings.image_size
    (width, height), kind = image.size, Image.Resampling[settings.interpolation.upper()]
    if min(width, height) != short:
        width, height = (
            (short, int(short * height / width))
            if width <= height
            else (int(short * width / height), short)
        )
    left, top = round((width - size) / 2), round((height - size) / 2)
    if max(width, height) > STRIP * short:  # resized whole, it could take gigabytes
        across, down = image.width / width, image.height / height
        right, bottom = (left + size) * across, (top + size) * down
        box = (left * across, top * down, min(right, image.width), min(bottom, image.height))
        return image.resize((size, size), kind, box=box)
    if image.size != (width, height):
        image = image.resize((width, height), kind)
    return image.crop((left, top, left + size, top + size))


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
