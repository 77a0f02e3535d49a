"""A study's plan: one TOML file of settings, methods and seeds.

[study]
seeds = [0, 1, 2]
references = ["joint"]

[settings.small]                    # what every method is trained on
preset = "cifar100-small"
set = { "training.epochs" = 30 }

[methods.joint]                     # any named set of settings
set = { method = "joint" }
[methods.replayed]                  # weights that follow another method's run
set = { method = "naive-dkd" }
replay = { method = "hdkd", as = "group-means" }
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, PositiveFloat, ValidationError

from hdkd_cli.choices import HeldOut, Replay
from hdkd_cli.errors import PresetError, SettingsError
from hdkd_cli.reading import read_toml
from hdkd_cli.settings.layers import Resolved, resolve
from hdkd_cli.settings.section import Section
from hdkd_cli.settings.values import show

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+]*(-[A-Za-z0-9._+]+)*")


class Stop(Section):
    """When no further seed is needed. It looks at the spread of differences, never at their sign.

    Adding seeds until a difference is significant finds differences that are not there; adding them
    until every interval is narrow does not.
    """

    half_width_pct: PositiveFloat
    """Enough seeds: the t interval of every method's difference to the references, in the mean over
    exits and in every setting, has at most this half-width, in points of accuracy."""
    min_seeds: Annotated[int, Field(ge=3)] = 3
    """Fewer seeds are never enough."""


class ReplayOf(Section):
    """Fixed weights that follow what another method of the plan learned."""

    method: str
    """Whose runs."""
    form: Annotated[Replay, Field(alias="as")] = "exact"
    """What of them is followed; see ``weights.replay_as``."""
    seed: int | None = None
    """Seed of the run that is followed; absent: the same seed."""


class Setting(Section):
    """What every method is trained on."""

    preset: str
    """Name of a preset, or a TOML file."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings over the preset's."""


class Method(Section):
    """A named set of settings."""

    set: dict[str, Any] = Field(default_factory=dict)
    """Settings over those of the setting; ``method = NAME`` included."""
    replay: ReplayOf | None = None
    """Whose learned weights it follows."""


class Study(Section):
    """The ``[study]`` table."""

    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    """Seeds in the order in which they are trained: all methods with one, then with the next."""
    references: Annotated[tuple[str, ...], Field(min_length=1)]
    """Methods that every other one is compared with."""
    split: HeldOut = "val"
    """Images that accuracies are measured on. ``test`` is read once, when everything is decided."""
    budgets: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (
        0.35, 0.5, 0.7, 0.85,
    )  # fmt: skip
    """Mean costs at which exits are compared, as fractions of the full network's MACs."""
    stop: Stop | None = None
    """When to stop before all seeds are trained; absent: never."""


class Plan(Section):
    """A whole study."""

    study: Study
    """What is repeated, and what is compared."""
    settings: Annotated[dict[str, Setting], Field(min_length=1)]
    """Named settings."""
    methods: Annotated[dict[str, Method], Field(min_length=1)]
    """Named methods."""


class Cell(NamedTuple):
    """One run of a study.

    Attributes:
        setting: Name of the setting.
        method: Name of the method.
        seed: The seed.
    """

    setting: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.setting}-{self.method}-s{self.seed}"


def read_plan(path: Path) -> Plan:
    """Read and check a plan; its settings are checked by `resolved`.

    Raises:
        PresetError: it is missing, or not TOML.
        SettingsError: a table is wrong, a name is no file name, or a method that is named is not
            there. The message has all mistakes.
    """
    tables = read_toml(path, PresetError)
    try:
        plan = Plan.model_validate(tables)
    except ValidationError as error:
        raise SettingsError(
            "\n".join(
                f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
                for problem in error.errors()
            )
        ) from None
    if problems := list(_contradictions(plan)):
        raise SettingsError("\n".join(f"{path}: {problem}" for problem in problems))
    return plan


def _contradictions(plan: Plan) -> Iterator[str]:
    for table, names in (("settings", plan.settings), ("methods", plan.methods)):
        for name in names:
            if not NAME.fullmatch(name):
                yield f"{table}.{name}: a name of letters, digits and single - . _ + is needed"
    for name in set(plan.study.references) - plan.methods.keys():
        yield f"study.references: {name!r} is no method of the plan"
    if len(set(plan.study.seeds)) < len(plan.study.seeds):
        yield "study.seeds: a seed is there twice"
    for name, method in plan.methods.items():
        followed = method.replay
        if followed is None:
            continue
        if followed.method not in plan.methods:
            yield f"methods.{name}.replay.method = {followed.method!r}: no such method"
        elif plan.methods[followed.method].replay is not None:
            yield f"methods.{name}.replay.method = {followed.method!r}: it is replayed itself"
        if followed.seed is not None and followed.seed not in plan.study.seeds:
            yield f"methods.{name}.replay.seed = {followed.seed}: not one of study.seeds"


def cells(plan: Plan) -> list[Cell]:
    """All runs in the order in which they are made.

    Seed by seed, so that a study that is cut off anywhere compares methods that have the same
    seeds; within a seed, what is followed comes before what follows it.
    """
    ordered: dict[Cell, None] = {}
    for seed in plan.study.seeds:
        for setting in plan.settings:
            for method in plan.methods:
                cell = Cell(setting, method, seed)
                if (followed := followed_by(plan, cell)) is not None:
                    ordered.setdefault(followed)
                ordered.setdefault(cell)
    return list(ordered)


def followed_by(plan: Plan, cell: Cell) -> Cell | None:
    """The run whose weights ``cell`` follows."""
    replay = plan.methods[cell.method].replay
    if replay is None:
        return None
    seed = cell.seed if replay.seed is None else replay.seed
    return Cell(cell.setting, replay.method, seed)


def resolved(
    plan: Plan, cell: Cell, runs: Path, flags: Mapping[str, object] | None = None
) -> Resolved:
    """The settings of one run.

    Args:
        plan: The plan.
        cell: Which run.
        runs: Folder of the study's runs.
        flags: ``--data-dir``, ``--device``.

    Raises:
        SettingsError, PresetError: naming the setting and the method.
    """
    setting, method = plan.settings[cell.setting], plan.methods[cell.method]
    given = setting.set | method.set
    if (followed := followed_by(plan, cell)) is not None:
        assert method.replay is not None
        given |= {
            "weights.replay": str(runs / followed.name),
            "weights.replay_as": method.replay.form,
        }
    assignments = [f"{key}={show(value)}" for key, value in given.items()]
    try:
        return resolve(
            setting.preset, assignments=assignments, flags={"--seed": cell.seed, **(flags or {})}
        )
    except SettingsError as problem:
        raise SettingsError(f"{cell.setting}, {cell.method}: {problem}") from None
