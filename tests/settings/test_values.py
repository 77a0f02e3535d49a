"""Text to values: what --set and the environment accept."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdkd_cli.settings.keys import field_of
from hdkd_cli.settings.values import from_text, from_toml_value, show


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("training.epochs", "10", 10),
        ("training.epochs", " 10 ", 10),
        ("optimizer.lr", "1e-3", 1e-3),
        ("data.flip", "true", True),
        ("data.flip", "True", True),
        ("data.flip", "FALSE", False),
        ("data.root", "/a/b c", "/a/b c"),
        ("data.root", "2024", "2024"),  # text needs no quotes
        ("data.root", "true", "true"),
        ("data.root", "/a,b", "/a,b"),
        ("data.root", "'none'", "none"),
        ("data.root", '"none"', "none"),
        ("data.root", "none", None),
        ("data.root", "", None),
        ("data.augment", "none", "none"),  # not optional: a word like others
        ("objective.teachers", "none", "none"),
        ("training.max_steps", "None", None),
        ("training.device", "cuda:0", "cuda:0"),
        ("model.growth_factors", "1,2,4", [1, 2, 4]),
        ("model.growth_factors", "[1, 2, 4]", [1, 2, 4]),
        ("model.growth_factors", "1", [1]),
        ("model.growth_factors", "", []),
        ("schedule.milestones", "0.5, 0.75", [0.5, 0.75]),
        ("model.options.width", "64", 64),
        ("model.options.block", "basic", "basic"),
        ("model.options.block", "none", "none"),
        ("model.options", "{width = 64}", {"width": 64}),
        ("no.such", "1", 1),
        ("no.such", "a b", "a b"),
        ("training.epochs", "1\nb = 2", "1\nb = 2"),
    ],
)
def test_text_means(key: str, text: str, value: Any) -> None:
    found = from_text(text, field_of(key))
    assert found == value
    assert type(found) is type(value)


@given(st.text())
@settings(deadline=None)
def test_any_text_is_taken(text: str) -> None:
    for key in ("data.root", "training.epochs", "model.growth_factors", "model.options.x", "x"):
        from_text(text, field_of(key))


@given(
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(1 - 2**63, 2**63 - 1)
    | st.booleans()
)
@settings(deadline=None)
def test_shown_values_are_read_back(value: float) -> None:
    assert from_text(show(value), field_of("model.options.x")) == value


def test_none_in_files() -> None:
    assert from_toml_value("none", field_of("data.val_per_class")) is None
    assert from_toml_value("none", field_of("data.augment")) == "none"
    assert from_toml_value("none", None) == "none"
    assert show(None) == "none"
