import os

import pytest
import torch
from pictures import CPU, folder_settings, make_folder, noise, rows, two_classes

from hdkd_cli.data import open_data, open_labelled
from hdkd_cli.errors import DataError

CLASSES = ("bird", "cat", "dog")


@pytest.fixture
def field(tmp_path):
    """Images of two of the three classes, one of them in a folder below."""
    root = make_folder(tmp_path / "data", {"field": {"dog": 3, "cat/night": 2}})
    return root / "field"


def test_labels_are_the_classes_of_the_run(field):
    images = open_labelled(field, folder_settings(field), CLASSES)
    assert images.source.keys[0] == "cat/night/000.png"
    assert images.labels_N.tolist() == [1, 1, 2, 2, 2]
    batches = list(images.batches(batch_size=2, device=CPU))
    assert [len(batch.labels) for batch in batches] == [2, 2, 1]
    assert torch.equal(torch.cat([batch.labels for batch in batches]), images.labels_N)


def test_images_are_seen_as_the_run_sees_its_own(tmp_path):
    root = two_classes(tmp_path)
    data = open_data(folder_settings(root))
    images = open_labelled(root / "test", data.settings, data.classes)
    (ours,) = images.batches(batch_size=99, device=CPU)
    (theirs,) = data.evaluation_batches("test", batch_size=99, device=CPU)
    assert rows(ours.images) == rows(theirs.images)
    assert images.transform == data.transform
    assert images.sha256 != data.splits["test"].sha256  # they are not the run's test split


def test_the_fingerprint_follows_the_images(field):
    def fingerprint():
        return open_labelled(field, folder_settings(field), CLASSES).sha256

    before = fingerprint()
    assert fingerprint() == before
    noise(99).save(field / "dog" / "000.png")
    assert fingerprint() != before


def test_bad_images_are_left_out_on_request(field):
    (field / "dog" / "001.png").write_text("no image")
    os.mkfifo(field / "dog" / "pipe.png")
    settings = folder_settings(field)
    with pytest.raises(DataError, match=r"dog/001\.png: not a readable image"):
        list(open_labelled(field, settings, CLASSES).batches(batch_size=9, device=CPU))
    images = open_labelled(field, settings, CLASSES, skip_bad=True)
    assert sorted(images.skipped) == ["dog/001.png", "dog/pipe.png"]
    assert images.labels_N.tolist() == [1, 1, 2, 2]
    (batch,) = images.batches(batch_size=9, device=CPU)
    assert len(batch.images) == 4


def test_unknown_classes_are_named_with_the_closest(field):
    (field / "dog").rename(field / "dogs")
    with pytest.raises(DataError, match="has no class 'dogs'") as problem:
        open_labelled(field, folder_settings(field), CLASSES)
    assert problem.value.hint == "closest to 'dogs': 'dog'"


def test_folders_without_labelled_images_are_refused(tmp_path, field):
    settings = folder_settings(tmp_path)
    (tmp_path / "flat").mkdir()
    noise(1).save(tmp_path / "flat" / "a.png")
    with pytest.raises(DataError, match="flat: no labelled images"):
        open_labelled(tmp_path / "flat", settings, CLASSES)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        open_labelled(tmp_path / "nowhere", settings, CLASSES)
