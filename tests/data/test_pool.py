import os

import pytest
import torch
from pictures import folder_settings, noise, two_classes

from hdkd_cli.data.in_memory import pool
from hdkd_cli.data.sources.folders import open_folder
from hdkd_cli.data.transform import frame, to_pixels
from hdkd_cli.errors import DataError


@pytest.fixture
def root(tmp_path):
    return two_classes(tmp_path / "data")


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path / "user"


@pytest.fixture
def decodings(monkeypatch):
    """One entry for each time that images were decoded."""
    made = []
    decode = pool.decode
    monkeypatch.setattr(pool, "decode", lambda *a, **k: made.append(1) or decode(*a, **k))
    return made


def load(root, **changes):
    settings = folder_settings(root, cache=True, **changes)
    return pool.decoded_pool(open_folder(root, cache=True), settings)


def cached(root):
    return sorted(path.name for path in (root / ".hdkd-cache").iterdir())


def test_pool_is_every_framed_image(root, monkeypatch):
    monkeypatch.setattr(pool, "IMAGES_PER_REQUEST", 3)  # 28 images: the last request is short
    source, settings = open_folder(root), folder_settings(root)
    expected = [to_pixels(frame(source.image(i), settings)) for i in range(len(source.keys))]
    assert torch.equal(pool.decoded_pool(source, settings), torch.stack(expected))
    assert not (root / ".hdkd-cache").exists()  # cache = false


def test_images_are_decoded_once(root, decodings):
    first, second = load(root), load(root)
    assert torch.equal(first, second)
    assert len(decodings) == 1
    assert cached(root) == ["decoded-10-8.safetensors", "survey.safetensors"]
    assert open_folder(root).keys[0].startswith("train/")  # the cache is no part of the data


def change_content(file):
    noise(999).save(file)


def change_size_alone(file):
    before = file.stat()
    noise(999, 13, 13).save(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def rename(file):
    file.rename(file.with_name("zzz.png"))


def remove(file):
    file.unlink()


@pytest.mark.parametrize("change", [change_content, change_size_alone, rename, remove])
def test_changed_files_are_decoded_again(root, decodings, change):
    load(root)
    change(root / "train" / "cat" / "003.png")
    fresh = pool.decoded_pool(open_folder(root), folder_settings(root))
    assert torch.equal(load(root), fresh)
    assert torch.equal(load(root), fresh)
    assert len(decodings) == 3  # before, fresh, and once after the change
    assert cached(root) == ["decoded-10-8.safetensors", "survey.safetensors"]


def test_files_of_another_date_are_the_same_images(root, decodings):
    load(root)
    os.utime(root / "train" / "cat" / "003.png", ns=(0, 0))
    load(root)
    assert len(decodings) == 1


def test_a_change_that_keeps_size_and_date_is_seen(root):
    file = root / "train" / "cat" / "003.png"
    noise(1).save(file, format="bmp")
    before, status = load(root), file.stat()
    noise(2).save(file, format="bmp")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == status.st_size
    assert not torch.equal(load(root), before)


def test_each_transform_has_its_own(root, decodings):
    assert load(root).shape[-1] == 8
    assert load(root, image_size=6).shape[-1] == 6
    assert load(root, resize=None).shape[-1] == 8
    assert len(decodings) == 3
    load(root, image_size=6)
    assert len(decodings) == 3


def truncate(content):
    return content[: len(content) // 2]


def flip_a_pixel(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def empty(content):
    return b""


def not_a_tensor_file(content):
    return b"PK\x03\x04" + content


@pytest.mark.parametrize("damage", [truncate, flip_a_pixel, empty, not_a_tensor_file])
def test_a_damaged_cache_is_rebuilt(root, decodings, damage):
    whole = load(root)
    file = root / ".hdkd-cache" / "decoded-10-8.safetensors"
    content = file.read_bytes()
    file.write_bytes(damage(content))
    assert torch.equal(load(root), whole)
    assert len(decodings) == 2
    assert torch.equal(load(root), whole)
    assert len(decodings) == 2


def test_users_cache_serves_where_the_data_is_read_only(root, user_cache, decodings):
    (root / ".hdkd-cache").write_text("in the way, as on a read-only disk")
    assert torch.equal(load(root), load(root))
    assert len(decodings) == 1
    (kept,) = user_cache.rglob("decoded-*.safetensors")
    assert kept.parent.parent == user_cache / "hdkd"
    other = two_classes(root.parent / "other", train=3, test=2)
    (other / ".hdkd-cache").write_text("in the way")
    assert len(load(other)) == 10
    load(root)
    assert len(decodings) == 2  # neither replaced the other


def test_without_any_place_nothing_is_kept(root, user_cache, decodings):
    (root / ".hdkd-cache").write_text("in the way")
    user_cache.write_text("in the way")
    assert torch.equal(load(root), load(root))
    assert len(decodings) == 2


def test_a_full_disk_ends_nothing(root, monkeypatch):
    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(pool, "write_tensors", full)
    assert len(load(root)) == 28


def test_all_unreadable_images_are_named_and_leave_no_pixels(root):
    (root / "test" / "dog" / "001.png").write_bytes(b"")
    cut = root / "train" / "cat" / "002.png"
    cut.write_bytes(cut.read_bytes()[:100])  # its header is whole
    with pytest.raises(DataError) as problem:
        load(root)
    first, *lines = str(problem.value).splitlines()
    assert first == "2 images cannot be read:"
    assert [line.split(": ")[0] for line in lines] == [f"  {cut}", f"  {root}/test/dog/001.png"]
    assert all("not a readable image" in line for line in lines)
    assert problem.value.hint.endswith("--set data.skip_bad=true")
    assert cached(root) == ["survey.safetensors"]


def test_an_image_that_went_away_is_named(root):
    source = open_folder(root)
    (root / "test" / "dog" / "001.png").unlink()
    with pytest.raises(DataError, match=r"test/dog/001\.png: No such file"):
        pool.decoded_pool(source, folder_settings(root, cache=True))


def test_worker_processes_decode_the_same(root, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(pool, "IMAGES_PER_WORKER", 10)
    monkeypatch.setattr(pool, "IMAGES_PER_REQUEST", 3)
    source = open_folder(root)
    ours = pool.decoded_pool(source, folder_settings(root, workers=2))
    assert torch.equal(ours, pool.decoded_pool(source, folder_settings(root, workers=0)))
