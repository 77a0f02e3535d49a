import os
from pathlib import Path

import pytest
import torch
from pictures import make_folder, noise, two_classes

from hdkd_cli.data.sources.folders import open_folder
from hdkd_cli.errors import DataError
from hdkd_cli.files import read_tensors


def test_keys_labels_and_parts(tmp_path):
    root = make_folder(
        tmp_path, {"train": {"b10": 2, "a": 1, "b2": 1}, "test": {"a": 1, "b2": 1, "b10": 1}}
    )
    source = open_folder(root)
    assert source.classes == ("a", "b10", "b2")  # as plain text, like ImageFolder
    assert source.keys == (
        "train/a/000.png",
        "train/b10/000.png",
        "train/b10/001.png",
        "train/b2/000.png",
        "test/a/000.png",
        "test/b10/000.png",
        "test/b2/000.png",
    )
    assert source.labels_N.tolist() == [0, 1, 1, 2, 0, 1, 2]
    assert source.parts == {"train": range(4), "test": range(4, 7)}
    assert source.image(0).tobytes() == noise(2).tobytes()


def test_labels_agree_with_torchvision(tmp_path):
    from torchvision.datasets import ImageFolder

    root = make_folder(tmp_path, {p: {"Zebra": 3, "ant": 2, "Äpfel": 1} for p in ("train", "test")})
    source = open_folder(root)
    theirs = ImageFolder(str(root / "train"))
    assert list(source.classes) == theirs.classes
    ours = zip(source.keys, source.labels_N.tolist(), strict=True)
    of_train = [(str(root / key), label) for key, label in ours if key.startswith("train/")]
    assert of_train == theirs.samples


def test_what_is_an_image(tmp_path):
    root = two_classes(tmp_path, train=1, test=1)
    cat = root / "train" / "cat"
    (cat / "deep" / "er").mkdir(parents=True)
    (cat / ".thumbnails").mkdir()
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "train" / "stray.png").write_bytes(b"")
    names = ["x.JPEG", "x.jpg", "x.bmp", "x.webp", "x.ppm", "x.tif", "x.TIFF", "deep/er/y.png"]
    for name in [*names, "notes.txt", ".hidden.png", "._x.jpg", ".thumbnails/z.png", "png"]:
        (cat / name).write_bytes(b"")
    source = open_folder(root)
    found = {key.removeprefix("train/cat/") for key in source.keys if "train/cat/" in key}
    assert found == {"000.png", *names}
    assert source.classes == ("cat", "dog")


def test_official_val_of_imagenet_is_test(tmp_path):
    root = make_folder(
        tmp_path, {"train": {"a": 2, "b": 2}, "val": {"a": 1, "b": 1}, "test": {"unlabelled": 1}}
    )
    source = open_folder(root, {"train": "train", "test": "val"})
    assert [source.keys[i] for i in source.parts["test"]] == ["val/a/000.png", "val/b/000.png"]
    assert "val" not in source.parts


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(DataError, match=r"no such folder as train or test; looked .*--data-dir"):
        open_folder(tmp_path / "nowhere")
    make_folder(tmp_path, {"train": {"a": 1, "b": 1}})
    with pytest.raises(DataError, match=r"no such folder as test; .*test/<class>/\*"):
        open_folder(tmp_path)


def test_empty_folders_are_named(tmp_path):
    root = two_classes(tmp_path)
    for file in (root / "test" / "dog").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"test/dog: no images .*\.png"):
        open_folder(root)
    (tmp_path / "bare" / "train").mkdir(parents=True)
    (tmp_path / "bare" / "test").mkdir()
    with pytest.raises(DataError, match=r"bare/train: no class folders"):
        open_folder(tmp_path / "bare")


def test_one_class_is_not_enough(tmp_path):
    root = make_folder(tmp_path, {"train": {"a": 3}, "test": {"a": 3}})
    with pytest.raises(DataError, match=r"only one class folder \(a\)"):
        open_folder(root)


def test_parts_must_have_the_same_classes(tmp_path):
    root = make_folder(
        tmp_path, {"train": {"a": 1, "b": 1, "c": 1}, "test": {"a": 1, "b": 1, "d": 1}}
    )
    with pytest.raises(DataError, match=r"train/ and test/ must .* only one of them has c, d"):
        open_folder(root)


def test_links_that_lead_back_are_not_followed(tmp_path):
    root = two_classes(tmp_path / "data", train=2, test=1)
    before = open_folder(root).keys
    cat = root / "train" / "cat"
    (cat / "deep").mkdir()
    (cat / "deep" / "back").symlink_to(cat)
    (cat / "self").symlink_to("self")
    (cat / "ping").symlink_to("pong")
    (cat / "pong").symlink_to("ping")
    assert open_folder(root).keys == before
    (root / "train" / "dog" / "more").symlink_to(cat)  # leads elsewhere: those are dogs too
    assert len(open_folder(root).keys) == len(before) + 2


def contents(root):
    source = open_folder(root, cache=True)
    return source.contents(range(len(source.keys)))


def test_a_file_is_read_once(tmp_path, monkeypatch):
    root = two_classes(tmp_path / "data", train=3, test=1)
    read = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or read_bytes(path))
    first = contents(root)
    assert len(read) == len(first) == 8
    assert contents(root) == first
    assert len(read) == 8
    noise(99).save(root / "train" / "cat" / "001.png")
    assert contents(root) != first
    assert [path.name for path in read[8:]] == ["001.png"]


def test_bad_images_are_found_by_their_headers_or_by_decoding(tmp_path):
    root = two_classes(tmp_path / "data", train=4, test=1)
    cat = root / "train" / "cat"
    (cat / "000.png").write_text("no image")
    (cat / "001.png").write_bytes((cat / "001.png").read_bytes()[:100])
    os.mkfifo(cat / "004.png")
    (cat / "005.png").symlink_to("nowhere")
    (cat / "006.png").symlink_to("006.png")
    source = open_folder(root, cache=True)
    assert list(source.problems(decode=False)) == [0, 4, 5, 6]
    for again in (source, open_folder(root, cache=True)):
        assert list(again.problems(decode=True)) == [0, 1, 4, 5, 6]
    with pytest.raises(DataError, match=r"005\.png: No such file or directory"):
        source.refuse_bad(decode=False)
    left = source.without({source.keys[i] for i in source.problems(decode=True)})
    assert [key.rpartition("/")[2] for key in left.keys] == [
        "002.png", "003.png", "000.png", "001.png", "002.png", "003.png", "000.png", "000.png",
    ]  # fmt: skip
    assert left.parts == {"train": range(6), "test": range(6, 8)}
    assert left.labels_N.tolist() == [0, 0, 1, 1, 1, 1, 0, 1]
    left.refuse_bad(decode=True)


@pytest.mark.parametrize("damage", [lambda c: c[:-9], lambda c: c[:-1] + bytes([c[-1] ^ 1])])
def test_what_is_kept_is_made_again_when_it_is_damaged(tmp_path, damage):
    root = two_classes(tmp_path / "data", train=2, test=1)
    first = contents(root)
    kept = root / ".hdkd-cache" / "survey.safetensors"
    whole = {name: t.clone() for name, t in read_tensors(kept, DataError)[0].items()}
    kept.write_bytes(damage(kept.read_bytes()))
    assert contents(root) == first
    again, _ = read_tensors(kept, DataError)
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())
