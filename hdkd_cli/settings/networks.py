"""The ``model`` section: one class of settings for each architecture.

A new architecture has its class here, in ``NetworkSettings``, and how it is built in
``models/architectures.py``.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union, get_args

from pydantic import (
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from hdkd_cli.choices import BackboneStem, ParameterInit, Prune, StemKind, StepMode
from hdkd_cli.settings.factories import FACTORY
from hdkd_cli.settings.section import Section


class AnyNetworkSettings(Section):
    """What every architecture can be."""

    name: str
    """The architecture."""
    static: bool = False
    """Without early exits: one exit, and none of the other heads. What early exits have to beat."""
    cut_at: PositiveInt | None = None
    """Exit that a ``static`` network ends at; absent: the last."""

    @model_validator(mode="after")
    def _only_static_networks_are_cut(self) -> Self:
        if self.cut_at is not None and not self.static:
            raise ValueError("cut_at needs static = true")
        return self


class MSDNetSettings(AnyNetworkSettings):
    """Multi-scale dense network (Huang et al., ICLR 2018)."""

    name: Literal["msdnet"] = "msdnet"
    """The architecture."""
    exits: PositiveInt = 5
    """Number of exits K."""
    base: PositiveInt = 1
    """Layers before the first exit."""
    step: PositiveInt = 1
    """Layers between two exits (``linear``: grows by ``step`` each time)."""
    step_mode: StepMode = "even"
    """Distance between exits: the same everywhere, or growing."""
    channels: PositiveInt = 16
    """Stem width c0 of the finest scale, before its growth factor."""
    growth: PositiveInt = 6
    """Channels added per layer at the finest scale, before its growth factor."""
    growth_factors: tuple[PositiveInt, ...] = (1, 2, 4)
    """Width factor of each scale, finest first; their number is the number of scales."""
    bottleneck_factors: tuple[PositiveInt, ...] = (1, 2, 4)
    """Width of each scale's 1×1 bottleneck as a multiple of what it feeds."""
    prune: Prune = "max"
    """When fine scales are dropped: early (published CIFAR and ImageNet nets) or late."""
    reduction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Width kept at transitions."""
    stem: StemKind = "cifar"
    """3×3 stem and 128-wide heads, or 7×7 stride-2 stem with pooling and full-width heads."""
    init: ParameterInit = "he"
    """Initial weights: the paper's He fan-out normal, or the framework's (what public code ran)."""

    @model_validator(mode="after")
    def _one_factor_per_scale(self) -> Self:
        if len(self.growth_factors) != len(self.bottleneck_factors):
            raise ValueError("growth_factors and bottleneck_factors must have one entry per scale")
        return self


class RANetSettings(AnyNetworkSettings):
    """Resolution adaptive network (Yang et al., CVPR 2020)."""

    name: Literal["ranet"] = "ranet"
    """The architecture."""
    scales: tuple[PositiveInt, ...] = (1, 2, 3)
    """Resolution of each sub-network, lowest first: 1, then the same or one more, which doubles
    the side. The number of exits is ``blocks`` plus ``block_step`` for each further sub-network."""
    growth_factors: tuple[PositiveInt, ...] = (4, 2, 1)
    """Width factor of each sub-network, lowest resolution first."""
    bottleneck_factors: tuple[PositiveInt, ...] = (4, 2, 1)
    """Width of each sub-network's 1×1 bottleneck as a multiple of what it feeds."""
    blocks: PositiveInt = 2
    """Blocks of the first sub-network, each with an exit."""
    block_step: PositiveInt = 2
    """Blocks that each further sub-network has more, each with an exit."""
    step: PositiveInt = 4
    """Layers of a block (``linear``: of the first; block t has t times as many)."""
    step_mode: StepMode = "even"
    """Whether all blocks have the same number of layers, or growing numbers."""
    channels: PositiveInt = 16
    """Stem width c0 before the growth factor."""
    growth: PositiveInt = 6
    """Channels added per layer, before the growth factor."""
    compress: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share κ of what a fusing layer adds that comes from the lower resolution."""
    reduction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Width kept at transitions."""
    stem: StemKind = "cifar"
    """3×3 stem and 128-wide heads, or 7×7 stride-2 stem with pooling and full-width heads."""
    init: ParameterInit = "he"
    """Initial weights: He fan-out normal, or the framework's."""

    @model_validator(mode="after")
    def _one_factor_per_sub_network(self) -> Self:
        if not len(self.scales) == len(self.growth_factors) == len(self.bottleneck_factors):
            raise ValueError(
                "scales, growth_factors and bottleneck_factors must have one entry per sub-network"
            )
        return self


class BackboneSettings(AnyNetworkSettings):
    """Any classifier of torchvision or timm: ``model.name = "torchvision:resnet18"``."""

    name: Annotated[str, Field(pattern=r"^(torchvision|timm):[A-Za-z_][\w.]*$")]
    """``torchvision:MODEL`` or ``timm:MODEL``."""
    exits: PositiveInt | tuple[str, ...] = 4
    """Number of exits K, at equal shares of the multiply-accumulates; or the names of the blocks
    after which the earlier exits are (``layer1,layer2``). The last exit is the model's own head."""
    head_width: PositiveInt | None = None
    """Width of a 1×1 convolution in the earlier heads on maps; absent: none."""
    stem: BackboneStem = "own"
    """``small``: for small images, the layers before the first block keep the size."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Rate of stochastic depth in the last block; absent: the model's own."""

    pretrained: str | None = None
    """Weights to start from: a file (safetensors, or a state dict of torch, of which nothing but
    tensors is read), or ``download``, the library's own. Images are then prepared as the model's
    were; absent: random weights."""

    @field_validator("exits", mode="before")
    @classmethod
    def _names_of_blocks(cls, value: object) -> object:
        """``a,b`` on the command line is a list of names."""
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(","))
        if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
            return tuple(value)
        if type(value) is int and value > 0:
            return value
        raise ValueError("should be a number of exits, or names of blocks: layer1,layer2")


class CustomModelSettings(AnyNetworkSettings):
    """A network of your own: ``model.name = "package.module:factory"``."""

    name: Annotated[str, Field(pattern=FACTORY)]
    """Factory called as ``factory(exits=, num_classes=, image_size=, **options)``; it returns a
    ``MultiExitNet``."""
    exits: PositiveInt
    """Number of exits K."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of the factory."""


NetworkSettings = MSDNetSettings | RANetSettings | BackboneSettings | CustomModelSettings
"""All architectures. Of two that take the same ``model.name``, the earlier one has it."""


@cache
def _names() -> dict[type[AnyNetworkSettings], TypeAdapter[Any]]:
    """What each architecture's ``name`` can be."""
    return {
        kind: TypeAdapter(_annotation(kind.model_fields["name"]))
        for kind in get_args(NetworkSettings)
    }


def _annotation(field: FieldInfo) -> Any:
    return Annotated[field.annotation, field]


def settings_of_network(name: Any) -> type[AnyNetworkSettings] | None:
    """The settings of the architecture that is called ``name``; None: there is none."""
    for kind, names in _names().items():
        try:
            names.validate_python(name, strict=True)
        except ValidationError:
            continue
        return kind
    return None


def _tag(value: Any) -> str | None:
    """Which member of the union below reads ``value``; None: none does."""
    if isinstance(value, Section):
        return type(value).__name__
    kind = settings_of_network(value.get("name", "msdnet"))
    return None if kind is None else kind.__name__


if TYPE_CHECKING:
    ModelSettings = NetworkSettings
else:
    ModelSettings = Annotated[
        Union[tuple(Annotated[kind, Tag(kind.__name__)] for kind in get_args(NetworkSettings))],  # noqa: UP007
        Discriminator(_tag),
    ]
