"""What the schema is read as."""

import pytest

from hdkd_cli.settings.keys import closest, field_of, flatten, kind_of, leaves, nest
from hdkd_cli.settings.networks import CustomModelSettings, MSDNetSettings
from hdkd_cli.settings.schema import Settings


def test_every_setting_has_a_field_and_a_description() -> None:
    for key in leaves(Settings()):
        field = field_of(key)
        assert field is not None, key
        assert field.description, key


@pytest.mark.parametrize("key", ["data", "data.x", "x", "x.y", "data.flip.x", "model.base.x"])
def test_no_field(key: str) -> None:
    assert field_of(key) is None


def test_kind_follows_the_name() -> None:
    assert kind_of("model", "msdnet") is MSDNetSettings
    assert kind_of("model", "my.nets:resnet") is CustomModelSettings
    for name in ("resnet", "my.nets:", ":x", "", 3, None, ["msdnet"]):
        assert kind_of("model", name) is None


def test_leaves_are_flat_and_nest_rebuilds_them() -> None:
    custom = CustomModelSettings(name="a:b", exits=2, options={"x": 1, "a.b": {"c": [2]}})
    settings = Settings(model=custom)
    flat = leaves(settings)
    assert flat["model.options.x"] == 1
    assert flat["model.options.a.b"] == {"c": [2]}
    assert Settings.model_validate(nest(flat)) == settings
    assert Settings.model_validate(nest(flat)) == settings


def test_flatten_leaves_foreign_tables_whole() -> None:
    assert list(flatten("modle", {"exits": 3})) == [("modle", {"exits": 3})]
    assert list(flatten("data", {"flip": {"x": 1}})) == [("data.flip", {"x": 1})]


def test_closest_prefers_the_same_name_elsewhere() -> None:
    known = ["optimizer.lr", "weights.lr", "training.seed"]
    assert closest("lr", known) == ["optimizer.lr", "weights.lr"]
    assert closest("training.sed", known) == ["training.seed"]
    assert closest("sede", known) == ["training.seed"]
    assert closest("qqqqq", known) == []
