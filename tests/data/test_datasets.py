"""The table of data sets, and data sets from outside."""

import pytest
from pictures import CPU

from hdkd_cli.data import open_data
from hdkd_cli.errors import DataError, SettingsError
from hdkd_cli.settings.data import DataSettings
from hdkd_cli.settings.datasets import DATASETS
from hdkd_cli.settings.layers import resolve

STRIPES = '''
import numpy as np
import torch
from hdkd_cli.data import ArraySource
from hdkd_cli.errors import DataError

def stripes(root, count=12, broken=None):
    """Horizontal against vertical stripes."""
    if broken == "raises":
        raise RuntimeError("no stripes today")
    if broken == "data":
        raise DataError(f"{root}: no stripes here")
    if broken == "type":
        return [1, 2]
    flat = np.zeros((2 * count, 8, 8, 3), dtype=np.uint8)
    flat[:count, ::2] = 255
    flat[count:, :, ::2] = 255
    labels = torch.arange(2 * count) // count
    return ArraySource.from_parts(["across", "down"], (flat, labels), (flat, labels))
'''


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "users_stripes.py").write_text(STRIPES)
    monkeypatch.syspath_prepend(tmp_path)


def own(**changes):
    settings = {"name": "users_stripes:stripes", "image_size": 8, "val_per_class": 2, **changes}
    return DataSettings.model_validate(settings)


def test_a_data_set_from_outside():
    data = open_data(own(options={"count": 9}))
    assert data.classes == ("across", "down")
    assert {role: len(split) for role, split in data.splits.items()} == {
        "train": 14,
        "val": 4,
        "calibration": 0,
        "reserve": 0,
        "test": 18,
    }
    (batch,) = data.evaluation_batches("test", batch_size=99, device=CPU)
    assert batch.images.shape == (18, 3, 8, 8)
    assert batch.labels.tolist() == [0] * 9 + [1] * 9


def test_it_begins_with_the_defaults_of_folder_and_drops_those_of_another():
    resolved = resolve(
        "cifar100-small",
        environment={},
        assignments=["data.name=users_stripes:stripes", "data.options.count=9"],
    )
    expected = DataSettings(
        name="users_stripes:stripes", options={"count": 9}, **DATASETS["folder"].defaults
    )
    assert resolved.settings.data == expected
    with pytest.raises(SettingsError, match=r"data\.options: digits has none"):
        open_data(DataSettings(options={"count": 3}))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"name": "no_such_module:stripes"}, SettingsError, "no_such_module cannot be imported"),
        ({"name": "users_stripes:spots"}, SettingsError, "(?s)has no function 'spots'.*a Source"),
        ({"options": {"colour": 1}}, SettingsError, "does not take root, colour"),
        ({"options": {"root": "x"}}, SettingsError, r"data\.options: root cannot be set here"),
        ({"options": {"broken": "raises"}}, SettingsError, "RuntimeError: no stripes today"),
        ({"options": {"broken": "type"}}, SettingsError, r"a list, a hdkd_cli\.\S+ is needed"),
        ({"options": {"broken": "data"}, "root": "/x"}, DataError, "/x: no stripes here"),
    ],
)
def test_what_a_factory_can_do_wrong(changes, error, message):
    with pytest.raises(error, match=message):
        open_data(own(**changes))


def test_unknown_names_are_refused_with_a_list():
    with pytest.raises(SettingsError, match=r'no such data set; there are: "digits", .*"package'):
        resolve(environment={}, assignments=["data.name=mnist"])


def test_the_table_tells_what_the_images_tell():
    assert len(open_data(DataSettings()).classes) == DATASETS["digits"].num_classes
