"""settings.toml re-creates the run."""

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdkd_cli.errors import SettingsError
from hdkd_cli.settings.data import DataSettings
from hdkd_cli.settings.datasets import DATASETS
from hdkd_cli.settings.keys import leaves
from hdkd_cli.settings.layers import resolve
from hdkd_cli.settings.methods import METHODS
from hdkd_cli.settings.networks import CustomModelSettings, MSDNetSettings
from hdkd_cli.settings.schema import (
    OptimizerSettings,
    ScheduleSettings,
    Settings,
    TrainingSettings,
    WeightSettings,
)
from hdkd_cli.settings.toml import from_toml, to_toml

text = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.floats(allow_nan=False, allow_infinity=False)
positive = numbers.filter(lambda x: x > 0)
values = st.recursive(
    text | numbers | st.integers(1 - 2**63, 2**63 - 1) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
counts = st.integers(min_value=1, max_value=2**40)


def some(section: Any, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A section with any subset of ``fields`` set."""
    return st.fixed_dictionaries({}, optional=fields).map(lambda found: section(**found))


anything = st.builds(
    Settings,
    data=some(
        DataSettings,
        name=st.sampled_from(list(DATASETS)),
        root=st.none() | text.filter(lambda root: root.lower() != "none"),
        flip=st.booleans(),
        resize=st.none() | counts,
        mean=st.tuples(numbers, numbers, numbers),
        val_per_class=st.none() | counts,
    ),
    model=some(
        MSDNetSettings,
        exits=counts,
        growth_factors=st.tuples(counts, counts, counts),
        step_mode=st.sampled_from(["even", "linear"]),
    )
    | st.builds(
        CustomModelSettings,
        name=st.just("package.module:factory"),
        exits=counts,
        options=st.dictionaries(text, values, max_size=4),
    ),
    weights=some(
        WeightSettings, distillation_sum=st.none() | positive, lr=positive, learned=st.booleans()
    ),
    optimizer=some(OptimizerSettings, lr=positive, weight_decay=positive),
    schedule=some(
        ScheduleSettings,
        milestones=st.lists(
            st.floats(0, 1, exclude_min=True, exclude_max=True), max_size=4
        ).map(tuple),
    ),
    training=some(
        TrainingSettings, seed=st.integers(0, 2**63 - 1), max_steps=st.none() | counts, device=text
    ),
)  # fmt: skip


@given(anything)
@settings(deadline=None)
def test_round_trip(before: Settings) -> None:
    origin = {key: f"layer\n{key} # [x]" for key in leaves(before)}
    assert from_toml(to_toml(before)) == before
    assert from_toml(to_toml(before, origin)) == before
    assert tomllib.loads(to_toml(before)) == tomllib.loads(to_toml(before, origin))


@pytest.mark.parametrize("name", DATASETS)
def test_absent_stays_absent_whatever_the_data_set_says(name: str) -> None:
    before = resolve(
        environment={},
        assignments=[f"data.name={name}", "data.val_per_class=none", "data.resize=none"],
    ).settings
    assert from_toml(to_toml(before)) == before


@pytest.mark.parametrize("method", METHODS)
def test_as_a_preset_it_gives_the_same_run(method: str, tmp_path: Any) -> None:
    before = resolve("digits", environment={}, assignments=[f"method={method}"])
    path = tmp_path / "settings.toml"
    path.write_text(to_toml(before.settings, before.origin), encoding="utf-8")
    after = resolve(str(path), environment={})
    assert after.settings == before.settings
    assert set(after.origin.values()) == {f"preset {path}"}


def test_every_setting_is_written_with_its_layer() -> None:
    resolved = resolve("digits", environment={}, assignments=["method=joint"])
    written = to_toml(resolved.settings, resolved.origin)
    assert 'teachers = "none" # --set method=joint\n' in written
    assert 'name = "digits" # preset digits\n' in written
    assert 'train_per_class = "none" # default\n' in written
    lines = [line for line in written.splitlines() if " = " in line and " # " in line]
    assert len(lines) == len(resolved.origin)


def test_mistakes_in_the_file_are_told() -> None:
    with pytest.raises(SettingsError, match=r"^run/settings.toml: is not valid TOML: .*line 1"):
        from_toml("[data\n", source="run/settings.toml")
    with pytest.raises(SettingsError) as caught:
        from_toml("schema = 'other'\n[data]\nflipp = 1\nname = 'x'", source="old")
    assert len(str(caught.value).splitlines()) == 4
    assert "data.flipp (old): no such setting" in str(caught.value)
