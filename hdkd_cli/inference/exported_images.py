"""Image files as evaluation reads them. H W pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

# What evaluation reads: hdkd_cli/data/transform.py.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "WEBP", "PPM", "TIFF", "GIF")
MAX_ASPECT = 1000
STRIP = 64
ORIENTATION = 0x0112


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode as RGB, upright: an Exif orientation is applied, transparency is dropped, of
    16-bit grey the upper 8 bits are kept."""
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        grey_HW = np.asarray(image).astype(np.int64).clip(0, 0xFFFF) >> 8
        image = Image.fromarray(grey_HW.astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns
    return image.convert("RGB")


def framed(image: Image.Image, transform: Mapping[str, Any]) -> Image.Image:
    """Resize the shorter side with antialiasing and cut out the centre."""
    short, size = transform["resize"], transform["crop"]
    width, height = image.size
    kind = Image.Resampling[transform["interpolation"].partition(",")[0].upper()]
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


def normalised(image: Image.Image, transform: Mapping[str, Any]) -> NDArray[np.float32]:
    """(x / 255 − mean) / std, float32 (3, H, W)."""
    mean, std = (np.array(transform[name], np.float32)[:, None, None] for name in ("mean", "std"))
    pixels_3HW = np.asarray(image).transpose(2, 0, 1).astype(np.float32)
    result: NDArray[np.float32] = (pixels_3HW / np.float32(255) - mean) / std
    return result
