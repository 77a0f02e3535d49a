import hashlib
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import folder_settings, named_source, noise, two_classes

from hdkd_cli.data import open_data
from hdkd_cli.data.splits import make_splits
from hdkd_cli.errors import DataError, SettingsError
from hdkd_cli.settings.data import DataSettings


def split_settings(**changes) -> DataSettings:
    return DataSettings.model_validate({"val_per_class": None, **changes})


def keys_of(source, split) -> list[str]:
    return [source.keys[i] for i in split.indices_N.tolist()]


@st.composite
def divisible(draw):
    """A source and settings that some split exists for."""
    val, train = draw(st.integers(2, 6)), draw(st.integers(1, 6))
    counts = draw(st.lists(st.integers(val + train, val + train + 9), min_size=2, max_size=5))
    source = named_source({f"class{i}": n for i, n in enumerate(counts)}, test=2)
    chosen = split_settings(
        val_per_class=val,
        train_per_class=draw(st.sampled_from([None, train])),
        calibration_fraction=draw(st.sampled_from([0.0, 0.3, 0.5])),
        split_seed=draw(st.integers(0, 99)),
    )
    return source, chosen


@settings(deadline=None)
@given(divisible())
def test_every_image_has_exactly_one_role(case):
    source, chosen = case
    splits = make_splits(source, chosen)
    assert list(splits) == ["train", "val", "calibration", "reserve", "test"]
    everywhere = torch.cat([split.indices_N for split in splits.values()])
    assert sorted(everywhere.tolist()) == list(range(len(source.keys)))
    assert splits["test"].indices_N.tolist() == list(source.parts["test"])


@settings(deadline=None)
@given(divisible())
def test_splits_are_class_balanced(case):
    source, chosen = case
    splits = make_splits(source, chosen)
    for role, split in splits.items():
        assert torch.equal(split.labels_N, source.labels_N[split.indices_N])
        if role == "test" or (role == "train" and chosen.train_per_class is not None):
            assert len(set(Counter(split.labels_N.tolist()).values())) == 1
    held_out = Counter(torch.cat([splits["val"].labels_N, splits["calibration"].labels_N]).tolist())
    assert set(held_out.values()) == {chosen.val_per_class}
    assert len(set(Counter(splits["calibration"].labels_N.tolist()).values())) <= 1
    assert (len(splits["calibration"]) > 0) == (chosen.calibration_fraction > 0)


@settings(deadline=None)
@given(divisible())
def test_splits_depend_on_the_seed_alone(case):
    source, chosen = case
    ours, again = make_splits(source, chosen), make_splits(source, chosen)
    assert {r: s.sha256 for r, s in ours.items()} == {r: s.sha256 for r, s in again.items()}
    # how many images train changes nothing for validation
    fewer = make_splits(source, chosen.model_copy(update={"train_per_class": 1}))
    for role in ("val", "calibration", "test"):
        assert ours[role].sha256 == fewer[role].sha256
    assert set(keys_of(source, fewer["train"])) <= set(keys_of(source, ours["train"]))


def test_another_seed_gives_other_images():
    source = named_source({"a": 50, "b": 50})
    first, second = (
        make_splits(source, split_settings(val_per_class=20, split_seed=s)) for s in (0, 1)
    )
    for role in ("train", "val"):
        assert first[role].sha256 != second[role].sha256
    assert first["test"].sha256 == second["test"].sha256


def test_choice_is_by_hash_of_seed_and_key():
    source = named_source({"a": 8, "b": 8})
    splits = make_splits(source, split_settings(val_per_class=3, train_per_class=4, split_seed=5))
    of_a = [f"train/a/{i}.png" for i in range(8)]
    order = sorted(of_a, key=lambda key: hashlib.sha256(f"5\0{key}".encode()).hexdigest())
    assert set(order[:3]) == {k for k in keys_of(source, splits["val"]) if "/a/" in k}
    assert set(order[3:7]) == {k for k in keys_of(source, splits["train"]) if "/a/" in k}
    assert set(order[7:]) == {k for k in keys_of(source, splits["reserve"]) if "/a/" in k}


def test_fingerprint_covers_classes_keys_labels_and_contents():
    source = named_source({"a": 4, "b": 4}, test=1)
    contents = [f"test/{name}/0.png".encode().hex() for name in "ab"]
    text = f"a\0b\ntest/a/0.png\x000\0{contents[0]}\ntest/b/0.png\x001\0{contents[1]}\n"
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert make_splits(source, split_settings())["test"].sha256 == expected


def replaced_by_noise(root):
    noise(999).save(root / "test" / "cat" / "001.png")


def swapped(root):
    for part in ("train", "test"):
        (root / part / "cat").rename(root / part / "tmp")
        (root / part / "dog").rename(root / part / "cat")
        (root / part / "tmp").rename(root / part / "dog")


def renamed_class(root):
    for part in ("train", "test"):
        (root / part / "cat").rename(root / part / "bat")


@pytest.mark.parametrize("change", [replaced_by_noise, swapped, renamed_class])
@pytest.mark.parametrize("cache", [True, False])
def test_other_images_under_the_same_names_are_told_apart(tmp_path, monkeypatch, change, cache):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    root = two_classes(tmp_path / "data")
    settings = folder_settings(root, cache=cache)

    def fingerprint():
        return open_data(settings).splits["test"].sha256

    before = fingerprint()
    assert fingerprint() == before
    change(root)
    after = fingerprint()
    assert after != before
    assert fingerprint() == after


@pytest.mark.parametrize(("available", "held_out"), [(2, 1), (10, 1), (19, 1), (20, 2), (500, 50)])
def test_a_tenth_validates_unless_told_otherwise(available, held_out):
    splits = make_splits(named_source({"a": available, "b": available}), split_settings())
    assert len(splits["val"]) == 2 * held_out
    assert len(splits["train"]) == 2 * (available - held_out)


def test_val_folder_is_val():
    source = named_source({"a": 10, "b": 10}, val=4)
    splits = make_splits(source, split_settings(calibration_fraction=0.5, train_per_class=7))
    val_keys = keys_of(source, splits["val"]) + keys_of(source, splits["calibration"])
    assert sorted(val_keys) == sorted(k for k in source.keys if k.startswith("val/"))
    assert {role: len(s) for role, s in splits.items()} == {
        "train": 14,
        "val": 4,
        "calibration": 4,
        "reserve": 6,
        "test": 2,
    }


def test_val_folder_and_val_per_class_contradict_each_other():
    with pytest.raises(SettingsError, match=r"val_per_class = 3 .* val/ folder"):
        make_splits(named_source({"a": 10, "b": 10}, val=4), split_settings(val_per_class=3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_per_class": 10}, "class 'b' has 10 training images, too few to hold out 10"),
        ({"val_per_class": 4, "train_per_class": 7}, "'b' has 6 training images left .* for 7"),
        ({"val_per_class": 1, "calibration_fraction": 0.5}, "'a' has 1 validation images, too few"),
    ],
)
def test_too_few_images(changes, message):
    with pytest.raises(DataError, match=message):
        make_splits(named_source({"a": 20, "b": 10}), split_settings(**changes))


def test_a_name_that_is_not_unicode_is_no_problem(tmp_path):
    root = two_classes(tmp_path)
    odd = root / "train" / "cat" / b"caf\xe9.png".decode(errors="surrogateescape")
    try:
        (root / "train" / "cat" / "000.png").rename(odd)
    except OSError:
        pytest.skip("this file system wants Unicode names")
    assert len(open_data(folder_settings(root)).splits["train"]) == 16
