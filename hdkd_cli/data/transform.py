"""The evaluation transform: RGB, shorter side resized, centre cropped, normalised.

There is one code path for every image, whether it comes from memory, a loader process or the
``predict`` command, so the same picture always gives the same numbers.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hdkd_cli.errors import DataError
from hdkd_cli.settings.schema import DataSettings


def read_image(path: Path) -> Image.Image:
    """Decode an image file into RGB.

    Raises:
        DataError: the file is missing, empty, truncated or not an image; the message names it.
    """
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except MemoryError:
        raise
    except Exception as problem:  # Pillow's decoders raise whatever the bytes lead them to
        raise DataError(f"{path}: not a readable image ({_first_line(problem)})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB.

    Transparency is dropped, not composed. Of 16-bit grey the upper 8 bits are kept. An EXIF
    orientation is not applied: training and evaluation see the pixels as they are stored.
    """
    if image.mode.startswith("I"):  # 16-bit grey; mode I is how some Pillow versions open it
        grey_HW = np.asarray(image).astype(np.int64).clip(0, 0xFFFF) >> 8
        image = Image.fromarray(grey_HW.astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns
    return image.convert("RGB")


def frame(image: Image.Image, settings: DataSettings) -> Image.Image:
    """Resize the shorter side to ``settings.resize`` and cut out the centre.

    Bilinear with antialiasing; the arithmetic of torchvision's ``Resize`` and ``CenterCrop``.

    Args:
        image: RGB.
        settings: ``resize`` and ``image_size``.

    Returns:
        RGB, ``image_size`` pixels a side.
    """
    short, size = settings.resize or settings.image_size, settings.image_size
    width, height = image.size
    if min(width, height) != short:
        width, height = (
            (short, int(short * height / width))
            if width <= height
            else (int(short * width / height), short)
        )
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
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


def describe(settings: DataSettings) -> str:
    """Canonical text of the evaluation transform, for fingerprints."""
    return json.dumps(
        {
            "resize": settings.resize or settings.image_size,
            "interpolation": "bilinear, antialiased",
            "center_crop": settings.image_size,
            "mean": settings.mean,
            "std": settings.std,
        }
    )


def _first_line(problem: Exception) -> str:
    return (str(problem) or type(problem).__name__).splitlines()[0]
