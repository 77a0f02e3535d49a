"""What a pretrained backbone expects of its images, in terms of data settings.

Read from the libraries' own tables, without building a model. torchvision and timm are imported
only where a pretrained backbone is asked for.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, get_args

from hdkd_cli.choices import Interpolation

TRANSFORM = ("image_size", "resize", "mean", "std", "interpolation")
"""The data settings that a pretrained backbone decides."""


def own_transform(name: str) -> dict[str, Any]:
    """Data settings of the transform that ``name`` was trained with; empty if it is not known.

    Args:
        name: ``torchvision:MODEL`` or ``timm:MODEL``.
    """
    library, _, model = name.partition(":")
    found = _of_timm(model) if library == "timm" else _of_torchvision(model)
    if found.get("interpolation") not in get_args(Interpolation):
        found.pop("interpolation", None)  # it has no setting, and is left to the data set's own
    return found


def _of_torchvision(model: str) -> dict[str, Any]:
    from torchvision.models import get_model_weights

    try:
        transform = get_model_weights(model).DEFAULT.transforms()
    except (ValueError, AttributeError):  # no such model, or no weights of it
        return {}
    if not hasattr(transform, "crop_size"):  # of another task
        return {}
    return {
        "image_size": transform.crop_size[0],
        "resize": transform.resize_size[0],
        "mean": tuple(transform.mean),
        "std": tuple(transform.std),
        "interpolation": transform.interpolation.value,
    }


def _of_timm(model: str) -> dict[str, Any]:
    if find_spec("timm") is None:
        return {}
    from timm.data import resolve_data_config
    from timm.models import get_pretrained_cfg

    try:
        config: Any = get_pretrained_cfg(model)
    except RuntimeError:  # no such pretrained tag
        return {}
    if config is None:
        return {}
    resolve: Any = resolve_data_config
    transform = resolve(pretrained_cfg=config.to_dict())
    size = transform["input_size"][-1]
    return {
        "image_size": size,
        "resize": int(size / transform["crop_pct"]),
        "mean": tuple(transform["mean"]),
        "std": tuple(transform["std"]),
        "interpolation": transform["interpolation"],
    }
