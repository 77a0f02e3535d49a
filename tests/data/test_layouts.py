"""Which folder holds which part, and what classes are called."""

import pytest
from pictures import folder_settings, make_folder, noise

from hdkd_cli.data import open_data
from hdkd_cli.errors import DataError


def opened(root, **changes):
    return open_data(folder_settings(root, **{"val_per_class": None, **changes}))


def sizes(data):
    return {role: len(split) for role, split in data.splits.items() if len(split)}


def keys(data, role):
    return [data.images.source.keys[i] for i in data.splits[role].indices_N.tolist()]


@pytest.fixture
def tiny_imagenet(tmp_path):
    """Two classes as they are downloaded: 5 images each to train on, 3 validation images."""
    make_folder(tmp_path, {"train": {"n01/images": 5, "n02/images": 5}})
    for name in ("n01", "n02"):
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("n01_0.PNG\t0\t0\t9\t9\n")
    for folder in ("val/images", "test/images"):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(3):
            noise(100 + i).save(tmp_path / folder / f"val_{i}.png")
    (tmp_path / "val" / "val_annotations.txt").write_text(
        "val_0.png\tn02\t0\t32\t44\t62\nval_2.png\tn01\t52\t55\t57\t59\nval_1.png\tn02\t4\t0\t60\t55\n"
    )
    (tmp_path / "words.txt").write_text(
        "n00\tentity\nn01\tgoldfish, Carassius auratus\nn02\ttree frog, tree-frog\n"
    )
    return tmp_path


def test_tiny_imagenet_is_read_as_it_is_downloaded(tiny_imagenet):
    data = opened(tiny_imagenet)
    assert data.classes == ("goldfish", "tree frog")
    assert sizes(data) == {"train": 8, "val": 2, "test": 3}
    assert keys(data, "test") == [f"val/images/val_{i}.png" for i in range(3)]
    assert data.splits["test"].labels_N.tolist() == [1, 1, 0]
    assert {key.split("/")[1] for key in keys(data, "train")} == {"n01", "n02"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_0.png\tn09\t0\n", "line 1"),
        ("../x.png\tn01\t0\n", "line 1"),
        ("\n", "names no images"),
    ],
)
def test_annotations_that_fit_nothing_are_refused(tiny_imagenet, line, message):
    (tiny_imagenet / "val" / "val_annotations.txt").write_text(line)
    with pytest.raises(DataError, match=rf"val_annotations\.txt.*{message}"):
        opened(tiny_imagenet)


def test_val_is_the_test_part_where_there_is_no_test(tmp_path):
    counts = {"train": {"a": 10, "b": 10}, "val": {"a": 2, "b": 2}}
    root = make_folder(tmp_path, counts)
    assert sizes(opened(root)) == {"train": 18, "val": 2, "test": 4}
    make_folder(tmp_path, {"test": {"a": 3, "b": 3}})
    assert sizes(opened(root)) == {"train": 20, "val": 4, "test": 6}
    assert sizes(opened(root, layout="train-val")) == {"train": 18, "val": 2, "test": 4}
    with pytest.raises(DataError, match=r"val_annotations\.txt: no such file"):
        opened(root, layout="tiny-imagenet")


def test_other_layouts_are_told_what_is_needed(tmp_path):
    make_folder(tmp_path, {".": {"a": 1, "b": 1}})
    with pytest.raises(DataError, match="no folder of images in a known layout") as problem:
        opened(tmp_path)
    assert "train/CLASS/*" in problem.value.hint
    with pytest.raises(DataError, match="nowhere: no such folder"):
        opened(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("file", "text", "classes"),
    [
        ("classes.txt", "n1 tench\nn2 goldfish\n", ("tench", "goldfish", "n3")),
        ("words.txt", "n1\tcrane, bird\nn2\tcrane\n", ("crane (n1)", "crane (n2)", "n3")),
        ("LOC_synset_mapping.txt", "n3 kite\n\nn9 x\nn1\n", ("n1", "n2", "kite")),
    ],
)
def test_names_of_classes_come_from_a_file(tmp_path, file, text, classes):
    counts = {part: {"n1": 3, "n2": 3, "n3": 3} for part in ("train", "test")}
    root = make_folder(tmp_path, counts)
    assert opened(root).classes == ("n1", "n2", "n3")
    (root / file).write_text(text)
    assert opened(root).classes == classes
    (root / file).write_bytes(b"n1 \xff\n")
    with pytest.raises(DataError, match="cannot be read as text"):
        opened(root)
