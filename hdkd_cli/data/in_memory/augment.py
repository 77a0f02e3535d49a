"""Random crops and mirrorings of a whole batch at once.

The random numbers are drawn on the CPU and sent to where the images are, so a CPU and a GPU run
see the same pictures. Shape suffixes: B batch, H W rows and columns,
P = H·W pixels, 3 colours.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def draw_crops(
    batch: int, *, padding: int, flip: bool, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw what ``crop_and_mirror`` does to each image.

    Returns:
        top_B and left_B, int64, 0 .. 2·padding; mirror_B, int64, 0 or 1 (always 0 without
        ``flip``).
    """
    top_B, left_B = torch.randint(2 * padding + 1, (2, batch), generator=generator)
    mirror_B = torch.randint(2, (batch,), generator=generator) * int(flip)
    return top_B, left_B, mirror_B


def crop_and_mirror(
    pixels_B3HW: Tensor, top_B: Tensor, left_B: Tensor, mirror_B: Tensor, *, padding: int
) -> Tensor:
    """Pad every image with zeros, cut H×W out at (top, left) and mirror where asked to.

    For each image what torchvision's ``pad``, ``crop`` and ``horizontal_flip`` do, in one gather.

    Returns:
        (B, 3, H, W).
    """
    height, width = pixels_B3HW.shape[2:]
    device = pixels_B3HW.device
    padded = F.pad(pixels_B3HW, (padding,) * 4)
    rows_BH = top_B[:, None] + torch.arange(height, device=device)
    columns_W = torch.arange(width, device=device)
    columns_BW = torch.where(mirror_B[:, None] == 1, width - 1 - columns_W, columns_W)
    columns_BW = left_B[:, None] + columns_BW
    places_BHW = rows_BH[:, :, None] * padded.shape[3] + columns_BW[:, None, :]
    places_B3P = places_BHW.flatten(1)[:, None].expand(-1, 3, -1)
    return padded.flatten(2).gather(2, places_B3P).view_as(pixels_B3HW)
