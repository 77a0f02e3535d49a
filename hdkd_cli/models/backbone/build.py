"""Any classifier as a network with several exits.

K exits, B batch, C classes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from torch import Tensor, fx, nn

from hdkd_cli.choices import BackboneStem
from hdkd_cli.errors import SettingsError
from hdkd_cli.models.backbone.cut import (
    Place,
    choose,
    fix_sizes,
    layouts,
    part,
    places,
    run_shapes,
    without_splits,
)
from hdkd_cli.models.backbone.heads import Tokens, exit_head
from hdkd_cli.models.backbone.stem import keep_size
from hdkd_cli.models.backbone.trace import trace
from hdkd_cli.models.backbone.zoo import make_classifier, model_names, split_name
from hdkd_cli.models.contract import MultiExitNet, Stage, State
from hdkd_cli.settings.networks import BackboneSettings
from hdkd_cli.wording import first_line

FEATURES = "features"
TANGLED = "between all its blocks several tensors are alive"
NEIGHBOURS = 4
"""How many models of similar name are tried where one cannot be cut."""


class BackboneStage(Stage):
    """A stretch of the backbone, and a head on what it returns.

    Args:
        backbone: From the images, or the features before, to the features here.
        classifier: From those to logits.
    """

    head_keys = (FEATURES,)

    def __init__(self, backbone: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier

    def body(self, state: State) -> State:
        """The features at this exit, and nothing else."""
        (before,) = state.values()
        return {FEATURES: self.backbone(before)}

    def head(self, state: State) -> Tensor:
        """Logits (B, C)."""
        logits: Tensor = self.classifier(state[FEATURES])
        return logits

    def head_modules(self) -> tuple[nn.Module, ...]:
        """The classifier."""
        return (self.classifier,)


class Backbone(MultiExitNet):
    """A classifier that was cut into stages: the last exit is its own head.

    All stages together compute what the classifier computes, with the same weights.

    Args:
        stages: K stages.
        name: ``torchvision:MODEL`` or ``timm:MODEL``.
        num_classes: C.
        image_size: Side of the square images in pixels.
        after: The modules after which the earlier exits are.
        head_width: Width of the 1×1 convolution in heads on maps, if any.
        stem: Whether the first layers keep the size.
    """

    stages: Sequence[BackboneStage]

    def __init__(
        self,
        stages: Iterator[BackboneStage],
        *,
        name: str,
        num_classes: int,
        image_size: int,
        after: Sequence[str],
        head_width: int | None,
        stem: BackboneStem,
    ) -> None:
        super().__init__(
            stages,
            name=name,
            num_classes=num_classes,
            input_shape=(3, image_size, image_size),
            arguments={"after": list(after), "head_width": head_width, "stem": stem},
        )


def build_backbone(
    settings: BackboneSettings, /, *, num_classes: int, image_size: int
) -> MultiExitNet:
    """Build a classifier with fresh weights, cut it and give each cut a head.

    Raises:
        SettingsError: there is no such model, or it cannot be cut like this, with the reason; of a
            model that cannot be cut at all, also the closest that can.
    """
    model = make_classifier(
        settings.name,
        num_classes=num_classes,
        image_size=image_size,
        drop_path=settings.drop_path,
    )
    traced, found, macs = _places(model, settings.name, settings.stem, image_size)
    *earlier, end = chosen = choose(found, settings.exits, macs, settings.name)
    tokens = Tokens(model)
    heads = [
        exit_head(
            layout,
            place.shape,
            num_classes=num_classes,
            bottleneck=settings.head_width,
            tokens=tokens,
        )
        for layout, place in zip(layouts([p.shape for p in earlier]), earlier, strict=True)
    ]
    heads.append(part(traced, end, None))
    return Backbone(
        (BackboneStage(b, h) for b, h in zip(_bodies(traced, chosen), heads, strict=True)),
        name=settings.name,
        num_classes=num_classes,
        image_size=image_size,
        after=[place.names[-1] for place in earlier],
        head_width=settings.head_width,
        stem=settings.stem,
    )


def _places(
    model: nn.Module, name: str, stem: BackboneStem, image_size: int
) -> tuple[fx.GraphModule, list[Place], int]:
    """The traced model, where it can be cut, and its multiply-accumulates for one image."""
    try:
        traced, returned_by = trace(model)
    except Exception as problem:  # a model's forward raises whatever it stumbles over
        raise _uncuttable(name, image_size, first_line(problem)) from problem
    if stem == "small":
        keep_size(traced, name)
    try:
        run = run_shapes(traced, image_size)
    except Exception as problem:
        how = ' and model.stem = "small"' if stem == "small" else ""
        raise SettingsError(
            f"model.name = {name!r}: does not run on images of {image_size} pixels{how} "
            f"({first_line(problem)})",
            hint="data.image_size may have to be the size that the model was made for",
            subject="data.image_size",
        ) from problem
    fix_sizes(traced, run)
    found = places(traced, run, returned_by)
    if not without_splits(found):
        split = next((place.splits for place in found if place.splits), None)
        reason = f"its blocks share weights, such as {split}" if split else TANGLED
        raise _uncuttable(name, image_size, reason)
    return traced, found, sum(run.macs.values())


def _bodies(traced: fx.GraphModule, chosen: Sequence[Place]) -> Iterator[nn.Module]:
    before: Place | None = None
    for place in chosen:
        yield part(traced, before, place)
        before = place


def _uncuttable(name: str, image_size: int, reason: str) -> SettingsError:
    near = _closest_that_can(name, image_size)
    return SettingsError(
        f"model.name = {name!r}: cannot be cut into stages: {reason}",
        hint=f"closest that can: {near}" if near else None,
        subject="model.name",
    )


def _closest_that_can(name: str, image_size: int) -> str | None:
    """A model of similar name that can be cut; None: none of the closest can."""
    library, model = split_name(name)
    others = [other for other in model_names(library) if other != model]
    for near in difflib.get_close_matches(model, others, n=NEIGHBOURS, cutoff=0.4):
        candidate = f"{library}:{near}"
        try:
            net = make_classifier(candidate, num_classes=2, image_size=image_size, drop_path=None)
            traced, returned_by = trace(net)
            if without_splits(places(traced, run_shapes(traced, image_size), returned_by)):
                return candidate
        except Exception:  # this one cannot either
            continue
    return None
