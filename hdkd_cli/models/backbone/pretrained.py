"""Pretrained weights for a backbone that was cut into stages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hdkd_cli.errors import CheckpointError
from hdkd_cli.models.backbone.build import Backbone
from hdkd_cli.models.backbone.zoo import make_classifier, split_name
from hdkd_cli.models.foreign import read_foreign_state
from hdkd_cli.settings.networks import BackboneSettings

DOWNLOAD = "download"
"""``model.pretrained``: fetch the weights that the library recommends."""
AUXILIARY = ("aux", "AuxLogits.")
"""Heads that some published weights have beside the last one, and the backbone has not."""
NAMED = 6
"""How many tensors a message names."""


def load_pretrained(net: Backbone, settings: BackboneSettings) -> str:
    """Give the backbone and its own head the weights of ``settings.pretrained``; returns a note.

    The earlier heads stay as they are. If the weights are for other classes, so does the last one.
    Position embeddings are resized to the images' size, as the library does it. The global random
    state is left as found.

    Raises:
        CheckpointError: the file is unusable or of another model, naming the tensors; or the
            download failed.
    """
    assert settings.pretrained is not None
    size = net.input_shape[-1]
    with torch.random.fork_rng(devices=[]):
        whole = make_classifier(
            settings.name,
            num_classes=net.num_classes,
            image_size=size,
            drop_path=settings.drop_path,
        )
    if settings.pretrained == DOWNLOAD:
        state, source = _downloaded(settings.name)
    else:
        path = Path(settings.pretrained).expanduser()
        state, source = read_foreign_state(path), str(path)
    state = _adapted(state, whole, settings.name, size)
    fresh = _of_other_classes(state, whole, net)
    _load(whole, {k: v for k, v in state.items() if k not in fresh}, fresh, source)
    weights = whole.state_dict()
    for part in _parts(net):
        ours = {name: weights[name] for name in part.state_dict() if name in weights.keys() - fresh}
        part.load_state_dict(ours, strict=False)  # else the fresh head, and constants of the graph
    note = f"pretrained weights from {source}"
    if fresh:
        classes = len(state[min(fresh)])
        note += (
            f"; they are for {classes} classes, so the last head ({', '.join(sorted(fresh))}) is "
            f"fresh, for {net.num_classes}"
        )
    return note


def _parts(net: Backbone) -> Iterator[nn.Module]:
    """All that is the classifier's own: not the earlier heads."""
    for stage in net.stages:
        yield stage.backbone
    yield net.stages[-1].classifier


def _downloaded(name: str) -> tuple[dict[str, Tensor], str]:
    """The library's own weights, by its own mechanism and checked as it does, and their name."""
    library, model = split_name(name)
    try:
        if library == "timm":
            import timm

            net = timm.create_model(model, pretrained=True)
            config: Any = net.pretrained_cfg
            return dict(net.state_dict()), f"timm ({config.get('hf_hub_id') or model})"
        from torchvision.models import get_model_weights

        weights: Any = get_model_weights(model).DEFAULT
        return weights.get_state_dict(progress=False, check_hash=True), f"torchvision ({weights})"
    except Exception as problem:  # network, hub and hash errors of two libraries
        raise CheckpointError(
            f"{name}: pretrained weights could not be fetched ({type(problem).__name__}: "
            f"{str(problem).splitlines()[0] if str(problem) else 'no reason given'})",
            hint="model.pretrained = FILE takes weights that are on this machine",
            subject=name,
        ) from problem


def _adapted(
    state: Mapping[str, Tensor], whole: nn.Module, name: str, size: int
) -> dict[str, Tensor]:
    """``state`` in the model's own names and for its image size, as its library does it."""
    library, model = split_name(name)
    if library == "timm":
        import timm

        module = import_module(timm.model_entrypoint(model.partition(".")[0]).__module__)
        adapt = getattr(module, "checkpoint_filter_fn", None)
        return dict(adapt(dict(state), whole)) if adapt else dict(state)
    kept = {k: v for k, v in state.items() if not k.startswith(AUXILIARY)}
    embedding = "encoder.pos_embedding"
    if embedding in kept:
        from torchvision.models.vision_transformer import interpolate_embeddings

        tokens = kept[embedding].shape[1] - 1
        if math.isqrt(tokens) ** 2 == tokens:
            patch: Any = whole.patch_size
            kept = dict(interpolate_embeddings(size, patch, kept))
    return kept


def _of_other_classes(state: Mapping[str, Tensor], whole: nn.Module, net: Backbone) -> set[str]:
    """Tensors of the last head whose first size is another number of classes."""
    own = whole.state_dict()
    return {
        name
        for name in net.stages[-1].classifier.state_dict()
        if name in own and name in state
        and own[name].shape[:1] == (net.num_classes,)
        and state[name].shape[:1] != own[name].shape[:1]
        and state[name].shape[1:] == own[name].shape[1:]
    }  # fmt: skip


def _load(whole: nn.Module, state: dict[str, Tensor], fresh: set[str], source: str) -> None:
    """Load ``state``, of which nothing may be missing but ``fresh``, and nothing left over.

    Raises:
        CheckpointError: naming what is missing, left over or of another shape.
    """
    own = whole.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    problems = {
        "missing": own.keys() - state.keys() - fresh - counters,
        "of no use": state.keys() - own.keys(),
        "of another shape": {k for k in state if k in own and state[k].shape != own[k].shape},
    }
    told = [
        f"{what}: {', '.join(sorted(names)[:NAMED])}"
        + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        for what, names in problems.items()
        if names
    ]
    if told:
        raise CheckpointError(f"{source}: is of another model; {'; '.join(told)}", subject=source)
    whole.load_state_dict(state, strict=False)
