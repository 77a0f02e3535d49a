"""The layers of settings, from the schema's defaults up to the command line's flags.

    default < dataset < pretrained < preset < file < environment < --set < flags

A higher layer wins, key by key, and every value of the result knows its layer. Five rules go
beyond that:

- ``method = NAME``, in any layer, stands for the settings ``METHODS[NAME]``. In the same layer,
  keys that are spelt out win over it; a higher layer's method wins over lower layers' keys.
- A layer that changes ``data.name`` drops the lower layers' keys that describe the data set (what
  ``DATASETS`` names, ``train_per_class`` and the like): they were written for other images, and
  would be wrong unnoticed. The new data set's own defaults take their place.
  ``data.root`` stays: a wrong folder is noticed.
- A layer that changes ``model.name`` drops the lower layers' model keys, but ``model.exits`` where
  the new network has it: other keys of the same name mean something else there.
- A backbone with ``model.pretrained`` brings the transform that it was trained with (layer
  ``pretrained``). If a higher layer gives ``data.image_size`` alone, there is no ``data.resize``.
- An MSDNet whose scales were not given has as many as ``data.image_size`` needs (``scales``).

What is dropped is told in ``Resolved.notes``. All mistakes of all layers are reported together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hdkd_cli.errors import Problem, SettingsError
from hdkd_cli.reading import read_toml
from hdkd_cli.records.settings import ResolvedSettings
from hdkd_cli.settings import presets
from hdkd_cli.settings.datasets import DATASETS, dataset_spec
from hdkd_cli.settings.explain import (
    contradictions,
    explain,
    not_text,
    unknown_key,
    unknown_network,
)
from hdkd_cli.settings.keys import (
    SECTIONS,
    default_of,
    field_of,
    kind_of,
    kinds,
    leaves,
    nest,
)
from hdkd_cli.settings.methods import METHODS
from hdkd_cli.settings.networks import BackboneSettings, MSDNetSettings
from hdkd_cli.settings.pretrained import TRANSFORM, own_transform
from hdkd_cli.settings.scales import scales_for
from hdkd_cli.settings.schema import Settings
from hdkd_cli.settings.sources import (
    DEFAULT,
    METHOD,
    Given,
    Layer,
    assignment_layer,
    environment_layer,
    flag_layer,
    table_layer,
)
from hdkd_cli.settings.trust import trust_factories
from hdkd_cli.settings.values import show

DATASET = "dataset"
MAX_GUESSES = 20
"""Unknown keys for which the closest setting is looked up: each takes milliseconds."""
RUN = "run"


@dataclass(frozen=True)
class Resolved:
    """Settings, and how they came about.

    Attributes:
        settings: The whole tree.
        origin: Key → layer, for every key: ``default``, ``dataset``, ``preset digits``,
            ``file x.toml``, ``environment HDKD_DATA__ROOT``, ``--set``, ``--set method=hdkd``,
            ``--seed``; ``run`` below ``resolve_over``.
        notes: Sentences about keys that were dropped.
    """

    settings: Settings
    origin: dict[str, str]
    notes: list[str]

    def record(self) -> ResolvedSettings:
        """All of it as data."""
        return ResolvedSettings(
            settings=self.settings.model_dump(), origin=self.origin, notes=tuple(self.notes)
        )


def resolve(
    preset: str | None = None,
    *,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
    assignments: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> Resolved:
    """Put all layers together.

    Args:
        preset: Name of a preset, or path of a TOML file that serves as one.
        config: Path of a TOML file.
        environment: Variables to read ``HDKD_*`` from; None: the process's.
        assignments: What ``--set`` was given: ``section.field=value`` or ``method=NAME``.
        flags: Flag (a key of ``FLAGS``) → its value; None: not given.

    Raises:
        PresetError: the preset is not there or cannot be read.
        SettingsError: anything else that is wrong, all of it, one line each.
    """
    problems: list[Problem] = []
    layers: list[Layer] = []
    if preset is not None:
        layers.append(table_layer(presets.read(preset).tables, f"preset {preset}", problems))
    if config is not None:
        try:
            tables = read_toml(config, SettingsError)
        except SettingsError as error:
            problems += error.problems
        else:
            tables.pop("preset", None)  # a copied preset is a fine settings file
            layers.append(table_layer(tables, f"file {config}", problems))
    variables = os.environ if environment is None else environment
    layers.append(environment_layer(variables, problems))
    layers.append(assignment_layer(assignments, problems))
    layers.append(flag_layer(flags or {}))
    return _trusting(combine(layers, problems))


def resolve_over(
    settings: Settings, *, assignments: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> Resolved:
    """Put ``--set`` and flags over the settings of a run (layer ``run``), for going on with it.

    The environment is not asked: what it said when the run began is in the run's settings.

    Raises:
        SettingsError: all that is wrong, one line each.
    """
    problems: list[Problem] = []
    run = {key: Given(value, RUN) for key, value in leaves(settings).items()}
    layers = [run, assignment_layer(assignments, problems), flag_layer(flags or {})]
    return _trusting(combine(layers, problems))


def _trusting(resolved: Resolved) -> Resolved:
    """``resolved``, with the code that the user named himself trusted."""
    values = leaves(resolved.settings).items()
    trust_factories(value for key, value in values if resolved.origin[key] != RUN)
    return resolved


def combine(layers: Iterable[Layer], problems: Sequence[Problem] = ()) -> Resolved:
    """Merge layers, lowest first, over the defaults, and validate the result.

    Raises:
        SettingsError: ``problems`` and all that is found here.
    """
    problems = list(problems)
    notes: list[str] = []
    given: Layer = {}
    for layer in layers:
        explicit = _expand_method(layer, problems)
        for section in ("data", "model"):
            notes += _drop_foreign(section, given, explicit)
        given |= explicit
    data_name = _name("data", given)
    spec = dataset_spec(data_name) if isinstance(data_name, str) else None
    own = spec.defaults if spec is not None else {}
    given = {f"data.{key}": Given(value, DATASET) for key, value in own.items()} | given

    given |= _of_pretrained(given)
    given |= _of_image_size(given)

    problems += _take_out_unusable(given)
    try:
        values = nest({key: value for key, (value, _) in given.items()})
        # JSON, strictly: lists become tuples and 1 becomes 1.0, but no text becomes a number.
        settings = Settings.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        problems += explain(error, given)
    else:
        problems += contradictions(settings, given)
    if problems:
        raise SettingsError.of(problems)
    origin = {key: given[key].origin if key in given else DEFAULT for key in leaves(settings)}
    return Resolved(settings, origin, notes)


def _of_pretrained(given: Layer) -> Layer:
    """What a pretrained backbone says about its images, where no other layer does."""
    name, source = _name("model", given), given.get("model.pretrained")
    said = {key for key, (_, origin) in given.items() if origin != DATASET}
    if source is None or source.value is None or not isinstance(name, str):
        return {}
    if kind_of("model", name) is not BackboneSettings:
        return {}
    wanted = [key for key in TRANSFORM if f"data.{key}" not in said]
    if not wanted:
        return {}
    own = own_transform(name)
    if "image_size" not in wanted:
        own["resize"] = None
    return {f"data.{key}": Given(own[key], f"pretrained {name}") for key in wanted if key in own}


def _of_image_size(given: Layer) -> Layer:
    """Scales of an MSDNet where none are given, for images that the default ones do not fit."""
    if kind_of("model", _name("model", given)) is not MSDNetSettings:
        return {}
    size, stem = (
        given[key].value if key in given else default_of(key)
        for key in ("data.image_size", "model.stem")
    )
    if type(size) is not int or size < 1:  # which is refused later
        return {}
    own = {f"model.{key}": value for key, value in scales_for(size, stem).items()}
    if own.keys() & given.keys():
        return {}
    return {key: Given(value, f"data.image_size = {size}") for key, value in own.items()}


def _expand_method(layer: Layer, problems: list[Problem]) -> Layer:
    """``layer`` with its method spelt out below its own keys."""
    explicit = dict(layer)
    if METHOD not in explicit:
        return explicit
    name, origin = explicit.pop(METHOD)
    if not isinstance(name, str) or name not in METHODS:
        problems.append(
            Problem(
                f"method = {show(name)} ({origin}): no such method", METHOD, name, origin,
                hint=f"there are: {', '.join(METHODS)}",
            )
        )  # fmt: skip
        return explicit
    return {
        f"{section}.{field}": Given(value, f"{origin} method={name}")
        for section, fields in METHODS[name].items()
        for field, value in fields.items()
    } | explicit


def _name(section: str, given: Layer) -> Any:
    """The ``name`` that holds in a section, as far as ``given`` goes."""
    key = f"{section}.name"
    return given[key].value if key in given else default_of(key)


def _drop_foreign(section: str, lower: Layer, layer: Layer) -> Iterator[str]:
    """Take out of ``lower`` what a change of ``<section>.name`` makes foreign; yield notes."""
    change = layer.get(f"{section}.name")
    if change is None or change.value == _name(section, lower):
        return
    for key in [key for key in lower if _goes_with_name(section, key, change.value)]:
        value, origin = lower.pop(key)
        yield (
            f"{key} = {show(value)} ({origin}) is dropped: "
            f"{section}.name is now {show(change.value)} ({change.origin})"
        )


def _goes_with_name(section: str, key: str, new: Any) -> bool:
    """Whether ``key`` says something about the data set or network that the section named before,
    and nothing about the ``new`` one."""
    if not key.startswith(f"{section}."):
        return False
    field = key.split(".")[1]
    if section == "data":
        return field in ("options", "layout", "train_per_class", "val_indices") or any(
            field in spec.defaults for spec in DATASETS.values()
        )
    # A number of exits is one in every network that can be told it; any network can be static.
    kind = kind_of(section, new)
    kept = {"name", "static", "exits"} & set(kind.model_fields if kind else ())
    return field not in kept


def _take_out_unusable(given: Layer) -> Iterator[Problem]:
    """Remove keys that do not exist or cannot be checked; yield what is wrong with them."""
    network = kind_of("model", _name("model", given))
    if network is None:
        yield unknown_network(given)
    in_use = {s: kinds(s) if s != "model" or network is None else (network,) for s in SECTIONS}
    known = [f"{s}.{field}" for s in SECTIONS for kind in in_use[s] for field in kind.model_fields]
    guesses = MAX_GUESSES
    for key in list(given):
        value = given[key].value
        if field_of(key) is None or ".".join(key.split(".")[:2]) not in known:
            guesses -= 1
            yield unknown_key(key, given, [METHOD, *known] if guesses >= 0 else [])
        elif isinstance(value, str) and not _is_unicode(value):
            yield not_text(key, given)
        elif network is not None or not key.startswith("model."):
            continue
        del given[key]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
