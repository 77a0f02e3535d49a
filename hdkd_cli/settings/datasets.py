"""The data sets: name → where its code is, its own defaults, how many classes it has.

A new one adds a row here and its source to ``data/sources/``. Code is named as text, so that the
command line knows every data set without loading any.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hdkd_cli.settings.factories import FACTORY


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a data set before it is opened.

    Attributes:
        open: ``package.module:function``, called with the data settings; it returns a
            ``hdkd_cli.data.Source``.
        defaults: What it changes about the defaults of ``DataSettings``; a layer of its own.
        num_classes: C; None: only the images tell.
        downloadable: Whether ``data.download`` can fetch it.
        needs_root: Whether ``data.root`` has to say where it is.
    """

    open: str
    defaults: Mapping[str, Any]
    num_classes: int | None = None
    downloadable: bool = False
    needs_root: bool = True


# Mean and deviation of the training images of CIFAR and ImageNet, on a 0..1 scale.
_CIFAR10 = {
    "padding": 4,
    "flip": True,
    "mean": (0.4914, 0.4824, 0.4467),
    "std": (0.2471, 0.2435, 0.2616),
    "val_per_class": 500,
}
_CIFAR100 = {
    "padding": 4,
    "flip": True,
    "mean": (0.5071, 0.4867, 0.4408),
    "std": (0.2675, 0.2565, 0.2761),
    "val_per_class": 50,
}
_PHOTOGRAPHS = {
    "image_size": 224,
    "resize": None,  # 256 of 224, and in proportion
    "augment": "resized-crop",
    "flip": True,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "val_per_class": None,
}

DATASETS: Mapping[str, DatasetSpec] = {
    # the schema's defaults are those of digits
    "digits": DatasetSpec(
        "hdkd_cli.data.sources.digits:open_digits", {}, num_classes=10, needs_root=False
    ),
    "cifar10": DatasetSpec(
        "hdkd_cli.data.sources.cifar:open_cifar", _CIFAR10, num_classes=10, downloadable=True
    ),
    "cifar100": DatasetSpec(
        "hdkd_cli.data.sources.cifar:open_cifar", _CIFAR100, num_classes=100, downloadable=True
    ),
    "folder": DatasetSpec("hdkd_cli.data.sources.layouts:open_folders", _PHOTOGRAPHS),
    "imagenet": DatasetSpec(
        "hdkd_cli.data.sources.layouts:open_imagenet",
        _PHOTOGRAPHS | {"val_per_class": 50},
        num_classes=1000,
    ),
}


def dataset_spec(name: str) -> DatasetSpec | None:
    """What is known of data set ``name``; None: there is none of this name.

    One from outside (``package.module:factory``) begins with the defaults of ``folder``.
    """
    if re.fullmatch(FACTORY, name):
        return DatasetSpec(name, _PHOTOGRAPHS, needs_root=False)
    return DATASETS.get(name)
