"""Classifiers of torchvision and timm by name."""

from __future__ import annotations

import difflib
import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from hdkd_cli.errors import SettingsError

WITHOUT_AUXILIARY = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
"""Arguments of models that otherwise return more than logits while they train."""


def split_name(name: str) -> tuple[str, str]:
    """``"timm:convnext_tiny"`` as (library, model)."""
    library, _, model = name.partition(":")
    return library, model


def make_classifier(
    name: str, *, num_classes: int, image_size: int, drop_path: float | None, **more: Any
) -> nn.Module:
    """A fresh classifier, with random weights from torch's global generator.

    Args:
        name: ``torchvision:MODEL`` or ``timm:MODEL``.
        num_classes: C.
        image_size: Side of the square images, told to the models that must know it.
        drop_path: Rate of stochastic depth in the last block; None: the model's own default.
        more: Further arguments of timm's ``create_model``.

    Raises:
        SettingsError: there is no such model, the library is missing, or it does not take this.
    """
    library, model = split_name(name)
    refuse_unknown(name)
    arguments: dict[str, Any] = {"num_classes": num_classes, **more}
    if library == "timm":
        import timm

        config = timm.get_pretrained_cfg(model)
        if config is not None and config.fixed_input_size:
            arguments["img_size"] = image_size
        if drop_path is not None:
            arguments["drop_path_rate"] = drop_path
        make = timm.create_model
    else:
        import torchvision.models

        if model.startswith("vit_"):
            arguments["image_size"] = image_size
        if model.startswith("maxvit"):
            arguments["input_size"] = (image_size, image_size)
        if drop_path is not None:
            arguments["stochastic_depth_prob"] = drop_path
        arguments |= WITHOUT_AUXILIARY.get(model, {})
        make = torchvision.models.get_model
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs, about each other
            net: nn.Module = make(model, **arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError) as problem:
        given = ", ".join(f"{key} = {value}" for key, value in arguments.items())
        raise SettingsError(
            f"model.name = {name!r}: cannot be built with {given} ({problem})"
        ) from problem
    return net


def refuse_unknown(name: str) -> None:
    """See that ``name`` is a model.

    Raises:
        SettingsError: it is none, with the closest; or its library is missing.
    """
    library, model = split_name(name)
    if library == "timm" and importlib.util.find_spec("timm") is None:
        raise SettingsError(
            f"model.name = {name!r}: needs timm", hint="pip install 'hdkd[timm]'", subject="timm"
        )
    known = model_names(library)
    # timm's names may end in the tag of pretrained weights, which only some of them have
    if model in known or (library == "timm" and model.partition(".")[0] in known):
        return
    near = difflib.get_close_matches(model, known, n=3, cutoff=0.5)
    raise SettingsError(
        f"model.name = {name!r}: {library} has no model {model!r}",
        hint=f"closest: {', '.join(near)}" if near else None,
        subject="model.name",
    )


def model_names(library: str) -> Sequence[str]:
    """The models of a library."""
    if library == "timm":
        import timm

        return timm.list_models()
    import torchvision.models

    return list(torchvision.models.list_models())
