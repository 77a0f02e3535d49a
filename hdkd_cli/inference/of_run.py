"""From a run to what its deployed network needs: itself made fast, its costs, images to try it on.

N images, C channels, H W pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hdkd_cli.choices import Role
from hdkd_cli.data import ImageData, open_data
from hdkd_cli.data.order import Request
from hdkd_cli.devices import keep_freed_memory
from hdkd_cli.errors import DataError
from hdkd_cli.evaluation.of_run import refuse_other_images
from hdkd_cli.inference.ready import memory_order, ready
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.models.cost import ExitCosts, measure_costs
from hdkd_cli.runs.folder import RunFolder


class Deployed(NamedTuple):
    """A network ready to run, and what its exits cost."""

    net: MultiExitNet
    costs: ExitCosts


def deployed(net: MultiExitNet, device: torch.device) -> Deployed:
    """Get ``net`` ready; on a CPU, this process then keeps the memory that it frees."""
    if device.type == "cpu":
        keep_freed_memory()
    return Deployed(ready(net, device), measure_costs(net))


def data_of_run(run: RunFolder, split: Role, data_root: str | None) -> ImageData:
    """The images that a run was made with.

    Raises:
        DataError: they are missing, or others; the split is empty.
    """
    changes = {"download": False} | ({"root": data_root} if data_root else {})
    data = open_data(run.settings().data.model_copy(update=changes))
    refuse_other_images(run, data)
    if not len(data.splits[split]):
        raise DataError(f"{run.path}: its {split} split is empty")
    return data


class Drawn(NamedTuple):
    """Some images of a split."""

    places: list[int]
    """Where in the split, in the order of the images."""
    images_NCHW: Tensor


def some_images(data: ImageData, split: Role, count: int, device: torch.device) -> Drawn:
    """At most ``count`` images of a split, drawn at random, always the same: folders are sorted by
    class, and any part of these is as mixed as the whole."""
    indices_N = data.splits[split].indices_N
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randperm(len(indices_N), generator=generator)[:count]
    request = Request(indices_N[drawn])
    channels_last = memory_order(device) is torch.channels_last
    (batch,) = data.images.batches(
        [request], augment=False, device=device, channels_last=channels_last
    )
    return Drawn(drawn.tolist(), batch.images)
