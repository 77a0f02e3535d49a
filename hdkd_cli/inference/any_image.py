"""Images as they are handed in, by path or from memory, and the tensors that the network takes.

B images of a batch, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from hdkd_cli.data.pictures import to_rgb
from hdkd_cli.data.transform import Normalise, frame, read_image, to_pixels
from hdkd_cli.errors import DataError
from hdkd_cli.settings.data import DataSettings

AnyImage = str | Path | Image.Image | Tensor
"""A path; a Pillow image; a tensor (3, H, W) or (1, H, W) of any size, uint8, or floating point
from 0 to 1."""


class Transform:
    """An image as evaluation sees it.

    Args:
        settings: Size, mean and standard deviation.
    """

    def __init__(self, settings: DataSettings) -> None:
        self.settings = settings

    def __repr__(self) -> str:
        return f"Transform({self.settings.shorter_side} -> {self.settings.image_size} pixels)"

    def pixels(self, image: AnyImage) -> Tensor:
        """The part of an image that the network sees: uint8 (3, H, W).

        Raises:
            DataError: it cannot be read, or is no image.
        """
        if isinstance(image, str | Path):
            rgb = read_image(Path(image))
        else:
            rgb = to_rgb(_of_tensor(image) if isinstance(image, Tensor) else image)
        return to_pixels(frame(rgb, self.settings))

    def __call__(self, image: AnyImage) -> Tensor:
        """What the network takes: float32 (3, H, W), normalised, on the CPU.

        Raises:
            DataError: it cannot be read, or is no image.
        """
        return self.normalised(self.pixels(image), torch.device("cpu"))

    def normalised(self, pixels: Tensor, device: torch.device) -> Tensor:
        """uint8 (..., 3, H, W) → float32, normalised, on ``device``."""
        return Normalise(self.settings, device)(pixels.to(device))


def _of_tensor(image: Tensor) -> Image.Image:
    """A tensor as a Pillow image. Floating point is rounded to 8 bits, as image files hold it."""
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise DataError(
            f"a tensor of shape {tuple(image.shape)} is no image",
            hint="give (3, H, W) or (1, H, W), or a batch (B, 3, H, W)",
        )
    if image.is_floating_point():
        if not bool(((image >= 0) & (image <= 1)).all()):
            raise DataError(
                "pixels in floating point lie from 0 to 1",
                hint="give images as they are: they are normalised here",
            )
        image = (image * 255).round().to(torch.uint8)
    if image.dtype != torch.uint8:
        raise DataError(f"pixels are {image.dtype}, uint8 or floating point is needed")
    pixels_HW3 = image.expand(3, -1, -1).permute(1, 2, 0).cpu().contiguous()
    return Image.fromarray(pixels_HW3.numpy())


def listed(images: AnyImage | Sequence[AnyImage] | Tensor) -> list[AnyImage]:
    """One image, several, or a batch (B, 3, H, W), as a list."""
    if isinstance(images, Tensor) and images.ndim == 4:
        return list(images)
    if isinstance(images, str | Path | Image.Image | Tensor):
        return [images]
    return list(images)
