"""Pictures as evaluation sees them: upright RGB, the shorter side resized, the centre cut out.

It needs numpy and Pillow alone: an exported network brings this file along.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hdkd_cli.wording import first_line

T = TypeVar("T")

FORMATS = ("PNG", "JPEG", "BMP", "DIB", "WEBP", "PPM", "TIFF", "GIF")
"""What Pillow may take a file for, whatever its name: its other readers are old, rare, or start
programs (PostScript)."""
MAX_ASPECT = 1000
"""Longer side over shorter side of an image that is read: of more, a crop shows next to nothing."""
STRIP = 64
"""From this aspect on, only what is cut out is resized, not the whole strip."""
ORIENTATION = 0x0112
"""Exif's tag for how a camera was held."""


class NoPicture(Exception):
    """A file is not read as a picture. The message says why, and does not name the file."""


def read_picture(file: Path | BinaryIO, use: Callable[[Image.Image], T]) -> T:
    """Open a picture, and return what ``use`` makes of it: `to_rgb`, say.

    Raises:
        NoPicture: it is none, it is damaged as far as ``use`` reads it, or too long a strip.
        OSError: it cannot be opened.
    """
    with file.open("rb") if isinstance(file, Path) else nullcontext(file) as stream:
        try:
            with Image.open(stream, formats=FORMATS) as image:
                width, height = image.size
                if max(width, height) > MAX_ASPECT * min(width, height):
                    raise NoPicture(
                        f"is {width}×{height} pixels: a side of more than {MAX_ASPECT} times the "
                        "other is refused"
                    )
                return use(image)
        except (NoPicture, MemoryError):
            raise
        except UnidentifiedImageError:
            raise NoPicture(f"not a readable image (none of {', '.join(FORMATS)})") from None
        except Exception as problem:  # Pillow's decoders raise whatever the bytes lead them to
            raise NoPicture(f"not a readable image ({first_line(problem)})") from None


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


def framed(image: Image.Image, short: int, size: int, interpolation: str) -> Image.Image:
    """Resize the shorter side to ``short`` and cut out the centre.

    With antialiasing; the arithmetic of torchvision's ``Resize`` and ``CenterCrop``.

    Args:
        image: RGB.
        short: Pixels of the shorter side.
        size: Pixels per side of what is cut out.
        interpolation: ``bilinear``, ``bicubic`` or another of Pillow's filters.
    """
    (width, height), kind = image.size, Image.Resampling[interpolation.upper()]
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
