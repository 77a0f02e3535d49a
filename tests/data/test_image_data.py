import ast
import itertools
import json
from pathlib import Path

import pytest
import torch
from pictures import CPU, folder_settings, make_folder, rows, same, two_classes
from PIL import Image

from hdkd_cli.data import Share, dataset, open_data
from hdkd_cli.data.in_memory import MemoryImages
from hdkd_cli.data.workers import LoadedImages
from hdkd_cli.errors import SettingsError
from hdkd_cli.inference.any_image import Transform
from hdkd_cli.settings.data import DataSettings
from hdkd_cli.settings.layers import resolve
from hdkd_cli.settings.transform import describe, discards


@pytest.fixture
def root(tmp_path):
    return two_classes(tmp_path, train=10, test=4)


def test_memory_files_and_single_images_agree_bit_for_bit(tmp_path):
    counts = {"train": {"a": 4, "b": 4}, "test": {"a": 3, "b": 3}}
    root = make_folder(tmp_path, counts, height=23, width=31)
    memory, files = (open_data(folder_settings(root, in_memory=m)) for m in ("always", "never"))
    transform = Transform(memory.settings)
    for role in ("train", "val", "test"):
        (ours,) = memory.evaluation_batches(role, batch_size=99, device=CPU)
        (theirs,) = files.evaluation_batches(role, batch_size=99, device=CPU)
        assert same(ours, theirs)
        keys = [memory.images.source.keys[i] for i in memory.splits[role].indices_N.tolist()]
        for key, image in zip(keys, ours.images, strict=True):
            with Image.open(root / key) as picture:
                assert torch.equal(transform(picture), image)


def test_digits_agree_with_themselves_as_files(tmp_path):
    settings = DataSettings(val_per_class=2, train_per_class=5)
    bundled = open_data(settings)
    source = bundled.images.source
    for part in ("train", "test"):
        for index in list(source.parts[part])[:150]:
            folder = tmp_path / part / source.classes[source.labels_N[index]]
            folder.mkdir(parents=True, exist_ok=True)
            source.image(index).convert("L").save(folder / f"{source.keys[index][-5:]}.png")
    change = {"name": "folder", "root": str(tmp_path), "in_memory": "never", "workers": 0}
    files = open_data(settings.model_copy(update=change))
    (theirs,) = files.evaluation_batches("test", batch_size=150, device=CPU)
    (ours, *_) = bundled.evaluation_batches("test", batch_size=150, device=CPU)
    assert rows(ours.images) == rows(theirs.images)
    assert files.transform == bundled.transform


@pytest.mark.parametrize("in_memory", ["always", "never"])
def test_evaluation_sees_everything_once_in_order(root, in_memory):
    data = open_data(folder_settings(root, in_memory=in_memory, calibration_fraction=0.5))
    for role, split in data.splits.items():
        batches = list(data.evaluation_batches(role, batch_size=3, device=CPU))
        sizes = [len(batch.labels) for batch in batches]
        assert sizes == [3] * (len(split) // 3) + [len(split) % 3] * (len(split) % 3 > 0)
        labels = [label for batch in batches for label in batch.labels.tolist()]
        assert labels == split.labels_N.tolist()
        again = list(data.evaluation_batches(role, batch_size=3, device=CPU))
        assert all(map(same, batches, again))


@pytest.mark.parametrize("in_memory", ["always", "never"])
def test_streams_read_their_own_split_alone(root, in_memory):
    data = open_data(
        folder_settings(
            root,
            in_memory=in_memory,
            augment="none",
            flip=False,
            val_per_class=4,
            calibration_fraction=0.5,
            train_per_class=4,
        )
    )
    of_role = {}
    for role in data.splits:
        (batch,) = data.evaluation_batches(role, batch_size=99, device=CPU)
        of_role[role] = rows(batch.images)
    assert sum(map(len, of_role.values())) == len(set().union(*of_role.values())) == 28
    for role, stream in (
        ("train", data.train_stream(batch_size=4, seed=0, device=CPU)),
        ("val", data.val_stream(batch_size=4, seed=0, device=CPU)),
    ):
        batches = itertools.islice(stream.batches(), 6)
        seen = set().union(*(rows(batch.images) for batch in batches))
        assert seen == of_role[role]


def test_validation_is_reshuffled_and_never_augmented(root):
    data = open_data(folder_settings(root, val_per_class=4))
    (plain,) = data.evaluation_batches("val", batch_size=8, device=CPU)
    stream = data.val_stream(batch_size=3, seed=0, device=CPU)
    assert stream.steps_per_epoch == 2  # 8 images: two whole batches a pass
    batches = list(itertools.islice(stream.batches(), 6))
    assert all(rows(batch.images) <= rows(plain.images) for batch in batches)
    pairs = zip(batches[::2], batches[1::2], strict=True)
    passes = [rows(first.images) | rows(second.images) for first, second in pairs]
    assert all(len(seen) == 6 for seen in passes)
    assert not same(batches[0], batches[2])
    assert same(next(stream.batches(5)), batches[5])


def test_a_small_validation_split_is_used_whole(root):
    data = open_data(folder_settings(root, val_per_class=2))
    (plain,) = data.evaluation_batches("val", batch_size=99, device=CPU)
    for batch in itertools.islice(data.val_stream(batch_size=64, seed=0, device=CPU).batches(), 3):
        assert len(batch.labels) == 4
        assert rows(batch.images) == rows(plain.images)


def test_a_training_split_smaller_than_a_batch_is_refused(root):
    data = open_data(folder_settings(root))
    assert data.train_stream(batch_size=16, seed=0, device=CPU).steps_per_epoch == 1
    with pytest.raises(
        SettingsError, match="train split has 16 images, fewer than one batch of 17"
    ):
        data.train_stream(batch_size=17, seed=0, device=CPU)


def test_what_is_held_in_memory(root, monkeypatch):
    def reader(**changes):
        return type(open_data(folder_settings(root, **changes)).images)

    assert reader() is MemoryImages
    assert reader(in_memory="never") is LoadedImages
    assert reader(augment="resized-crop") is LoadedImages
    monkeypatch.setattr(dataset, "MEMORY_LIMIT_BYTES", 28 * 3 * 8 * 8)
    assert reader() is LoadedImages
    assert reader(in_memory="always") is MemoryImages
    monkeypatch.setattr(dataset, "MEMORY_LIMIT_BYTES", 28 * 3 * 8 * 8 + 1)
    assert reader() is MemoryImages


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resize": 7}, "data.resize = 7 is smaller than data.image_size = 8"),
        ({"std": (0.1, 0.0, 0.1)}, r"data.std = \(0.1, 0.0, 0.1\) must be positive"),
        ({"augment": "resized-crop", "in_memory": "always"}, "in_memory = always does not go with"),
    ],
)
def test_contradictions_are_refused(root, changes, message):
    with pytest.raises(SettingsError, match=message):
        open_data(folder_settings(root, **changes))


def test_a_missing_root_is_asked_for():
    with pytest.raises(SettingsError, match="imagenet needs a folder: --data-dir"):
        open_data(DataSettings(name="imagenet"))


def test_all_contradictions_are_told_at_once(root):
    with pytest.raises(SettingsError, match=r"(?s)data\.resize.*data\.std"):
        open_data(folder_settings(root, resize=7, std=(0.0, 1.0, 1.0)))


def test_layouts_of_folder_and_imagenet(tmp_path):
    counts = {"train": {"a": 5, "b": 5}, "val": {"a": 2, "b": 2}, "test": {"a": 3, "b": 3}}
    root = make_folder(tmp_path, counts)
    as_folder = open_data(folder_settings(root, val_per_class=None))
    as_imagenet = open_data(folder_settings(root, name="imagenet", val_per_class=1))
    sizes = [
        [len(data.splits[r]) for r in ("train", "val", "test")] for data in (as_folder, as_imagenet)
    ]
    assert sizes == [[10, 4, 6], [8, 2, 4]]


def test_a_home_folder_is_understood(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    here = folder_settings(root)
    data = open_data(here.model_copy(update={"root": f"~/{root.name}"}))
    assert data.splits["test"].sha256 == open_data(here).splits["test"].sha256


def test_torchvision_is_imported_only_where_it_is_used():
    files = sorted(Path(dataset.__file__).parent.rglob("*.py"))
    statements = [statement for file in files for statement in ast.parse(file.read_text()).body]
    imports = [s for s in statements if isinstance(s, ast.Import | ast.ImportFrom)]
    assert len(imports) > 50
    assert not [s for s in imports if "torchvision" in ast.unparse(s)]


@pytest.mark.parametrize("in_memory", ["always", "never"])
@pytest.mark.parametrize("augment", ["pad-crop", "none"])
def test_ranks_see_their_part_of_the_same_pictures(root, in_memory, augment):
    data = open_data(folder_settings(root, in_memory=in_memory, augment=augment))
    for stream_of in (data.train_stream, data.val_stream):
        whole = stream_of(batch_size=4, seed=3, device=CPU)
        parts = [stream_of(batch_size=4, seed=3, device=CPU, share=Share(r, 2)) for r in range(2)]
        for batch, *shared in itertools.islice(
            zip(whole.batches(1), *(part.batches(1) for part in parts), strict=True), 3
        ):
            assert [len(part.labels) for part in shared] == [2, 2]
            assert torch.equal(torch.cat([part.images for part in shared]), batch.images)
            assert torch.equal(torch.cat([part.labels for part in shared]), batch.labels)


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_ranks_evaluate_every_image_once(root, ranks):
    data = open_data(folder_settings(root))
    batches = list(data.evaluation_batches("train", batch_size=4, device=CPU))
    seen = [
        list(data.evaluation_batches("train", batch_size=4, device=CPU, share=Share(r, ranks)))
        for r in range(ranks)
    ]
    in_turn = [b for turn in itertools.zip_longest(*seen) for b in turn if b is not None]
    assert len(in_turn) == len(batches)
    assert all(torch.equal(a.images, b.images) for a, b in zip(in_turn, batches, strict=True))


@pytest.mark.parametrize("in_memory", ["always", "never"])
def test_bad_images_are_left_out_on_request(root, in_memory):
    settings = folder_settings(root, in_memory=in_memory, skip_bad=True)
    whole = open_data(settings)
    assert whole.skipped == {}
    bad, mended = root / "train" / "dog" / "004.png", root / "test" / "cat" / "001.png"
    content = mended.read_bytes()
    for path in (bad, mended):
        path.write_text("no image")
    data = open_data(settings)
    assert sorted(data.skipped) == ["test/cat/001.png", "train/dog/004.png"]
    assert sum(map(len, data.splits.values())) == 28 - 2
    (batch,) = data.evaluation_batches("test", batch_size=99, device=CPU)
    assert len(batch.labels) == 7
    assert "2 images that cannot be read are left out" in data.in_words()

    # removed or mended, the run goes on with the images that it began with
    bad.unlink()
    mended.write_bytes(content)
    again = open_data(settings, without=data.skipped)
    for role, split in data.splits.items():
        assert again.splits[role].sha256 == split.sha256
    assert open_data(settings).splits["test"].sha256 == whole.splits["test"].sha256


@pytest.mark.parametrize(
    ("assignments", "side"),
    [
        ([], 256),
        (["data.image_size=32"], 37),
        (["data.image_size=64"], 73),
        (["data.image_size=32", "data.augment=pad-crop"], 32),
        (["data.image_size=32", "data.resize=40"], 40),
    ],
)
def test_the_resize_of_folders_follows_the_image_size(assignments, side):
    settings = resolve(environment={}, assignments=["data.name=folder", *assignments]).settings.data
    assert settings.shorter_side == side
    assert json.loads(describe(settings))["resize"] == side
    assert discards(settings) is None


def test_a_transform_that_discards_most_of_an_image_says_so(root):
    data = open_data(folder_settings(root, image_size=32, resize=256, augment="resized-crop"))
    assert data.in_words() == [
        "2 classes; images: 16 train, 4 val, 8 test",
        "images are resized to 256 pixels on their shorter side and the centre of 32×32 is cut out;"
        " in training: a random area is resized to 32×32, half are mirrored",
        "data.resize = 256 with data.image_size = 32: evaluation sees 2 % of a square image, its "
        "centre",
    ]


def test_files_that_are_not_taken_for_images_are_told(root):
    for name in ("a.heic", "b.HEIC", "notes.txt", "README", ".hidden.heic"):
        (root / "train" / "cat" / name).write_bytes(b"")
    data = open_data(folder_settings(root))
    assert data.others == {".heic": 2, ".txt": 1, "": 1}
    (said,) = [line for line in data.in_words() if "left out" in line]
    assert {"2 .heic", "1 .txt", "1 of none"} == set(said.partition(": ")[2].split(", "))
