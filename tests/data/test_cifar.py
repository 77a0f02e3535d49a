import hashlib
import pickle
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from pictures import two_classes
from torchvision import datasets

from hdkd_cli.data import Source, open_data
from hdkd_cli.data.sources.cifar import open_cifar
from hdkd_cli.errors import DataError, SettingsError
from hdkd_cli.settings.data import DataSettings

KINDS = {"cifar10": (datasets.CIFAR10, "labels"), "cifar100": (datasets.CIFAR100, "fine_labels")}


def opened(name: str, root: Path, *, download: bool) -> Source:
    return open_cifar(DataSettings(name=name, root=str(root), download=download))


def write_cifar(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve training and six test images in the authors' format, as torchvision expects them."""
    kind, labels_key = KINDS[name]
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(file: str, content: object) -> str:
        (folder / file).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / file).read_bytes()).hexdigest()

    def batch(count: int) -> dict[str, object]:
        data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        return {"data": data, labels_key: [i % 3 for i in range(count)]}

    trains = [[f"part_{i}", write(f"part_{i}", batch(6))] for i in range(2)]
    tests = [["test", write("test", batch(6))]]
    meta = {"filename": "meta", "key": "names", "md5": write("meta", {"names": ["x", "y", "z"]})}
    monkeypatch.setattr(kind, "train_list", trains)
    monkeypatch.setattr(kind, "test_list", tests)
    monkeypatch.setattr(kind, "meta", meta)
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_torchvisions_files(name, tmp_path, monkeypatch):
    write_cifar(name, tmp_path, monkeypatch)
    source = opened(name, tmp_path, download=False)
    assert source.classes == ("x", "y", "z")
    assert source.parts == {"train": range(12), "test": range(12, 18)}
    assert source.labels_N.tolist() == [0, 1, 2] * 6
    assert (source.keys[0], source.keys[12]) == ("train/00000", "test/00000")
    written = np.random.default_rng(0).integers(0, 256, (12, 3072), dtype=np.uint8)
    raw = written[8]  # planes of R, G, B
    assert (np.asarray(source.image(8)) == raw.reshape(3, 32, 32).transpose(1, 2, 0)).all()


@pytest.mark.parametrize("file", ["part_0", "test", "meta"])
def test_a_changed_pickle_is_never_opened(file, tmp_path, monkeypatch):
    folder = write_cifar("cifar100", tmp_path, monkeypatch)

    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    (folder / file).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match=rf"(?s){file}: is damaged or was changed.*--download"):
        opened("cifar100", tmp_path, download=False)
    assert not (tmp_path / "sprung").exists()


def test_missing_data_says_what_to_do(tmp_path):
    with pytest.raises(
        DataError, match=r"(?s)cifar100 is not there; .*train/<class>.*--download.*--data-dir"
    ):
        opened("cifar100", tmp_path / "nowhere", download=False)
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(SettingsError, match=r"--data-dir .* --download"):
        open_data(DataSettings(name="cifar10"))


def test_download_fetches_what_is_missing(tmp_path, monkeypatch, capsys):
    calls = []
    published = write_cifar("cifar10", tmp_path / "server", monkeypatch)

    def fetch(url, root, filename, md5):
        calls.append((url, filename))
        print("Extracting")  # noqa: T201
        shutil.copytree(published, Path(root) / published.name)

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fetch)
    for _ in range(2):  # the second time it is there
        source = opened("cifar10", tmp_path / "new", download=True)
    assert len(source.keys) == 18
    assert calls == [(datasets.CIFAR10.url, "cifar-10-python.tar.gz")]
    assert capsys.readouterr().out == ""


def test_failed_download_is_one_line(tmp_path, monkeypatch):
    def fetch(url, root, filename, md5):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fetch)
    with pytest.raises(
        DataError, match=r"cifar-100-python.tar.gz could not be .*: no route to host"
    ):
        opened("cifar100", tmp_path, download=True)


def test_a_folder_of_images_will_do(tmp_path):
    source = opened("cifar100", two_classes(tmp_path), download=True)
    assert source.classes == ("cat", "dog")


def test_warnings_of_old_pickles_stay_quiet(tmp_path, monkeypatch):
    write_cifar("cifar10", tmp_path, monkeypatch)
    load = pickle.load

    def noisy(*args, **kwargs):
        warnings.warn("dtype(): align should be passed as a boolean", stacklevel=2)
        return load(*args, **kwargs)

    monkeypatch.setattr("torchvision.datasets.cifar.pickle.load", noisy)
    assert len(opened("cifar10", tmp_path, download=False).keys) == 18
