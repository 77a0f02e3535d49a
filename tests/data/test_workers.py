import itertools
import multiprocessing
import os
import signal

import pytest
import torch
from pictures import CPU, folder_settings, make_folder, rows, same
from torchvision.transforms import v2

from hdkd_cli.data import open_data
from hdkd_cli.data.order import derived_seed
from hdkd_cli.data.transform import Normalise
from hdkd_cli.data.workers import LoadedImages, killed_workers_told
from hdkd_cli.errors import DataError


@pytest.fixture
def root(tmp_path):
    counts = {"train": {"cat": 9, "dog": 9}, "test": {"cat": 3, "dog": 3}}
    return make_folder(tmp_path, counts, height=14, width=20)


@pytest.fixture
def four_cores(monkeypatch):
    """Worker processes even on a machine with a single core."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)


def opened(root, **changes):
    data = open_data(folder_settings(root, **{"augment": "resized-crop", **changes}))
    assert isinstance(data.images, LoadedImages)
    return data


def take(data, count, first_step=0, seed=0):
    stream = data.train_stream(batch_size=4, seed=seed, device=CPU)
    batches = stream.batches(first_step)
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def test_resized_crop_is_torchvisions_drawn_per_image(root):
    data = opened(root)
    transform = v2.Compose([v2.RandomResizedCrop(8), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    normalise = Normalise(data.settings, CPU)
    stream = data.train_stream(batch_size=4, seed=5, device=CPU)
    requests = stream.order.requests(2)
    for request, batch in zip(itertools.islice(requests, 4), stream.batches(2), strict=False):
        for index, image in zip(request.indices_B.tolist(), batch.images, strict=True):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derived_seed(5, "augment", request.epoch, index))
                expected = normalise(transform(data.images.source.image(index)))
            assert torch.equal(image, expected)


def test_pad_crop_cuts_from_the_framed_image(root):
    settings = {"augment": "pad-crop", "in_memory": "never", "flip": False}
    data = opened(root, **settings)
    (plain,) = data.evaluation_batches("train", batch_size=14, device=CPU)
    zero = -torch.tensor(data.settings.mean) / torch.tensor(data.settings.std)
    padded = zero.view(1, 3, 1, 1).expand(14, 3, 12, 12).clone()
    padded[:, :, 2:-2, 2:-2] = plain.images  # zero padding before normalisation
    possible = set()
    for top, left in itertools.product(range(5), repeat=2):
        possible |= rows(padded[:, :, top : top + 8, left : left + 8])
    seen = set().union(*(rows(batch.images) for batch in take(data, 9)))
    assert seen <= possible
    assert len(seen) > 18


@pytest.mark.parametrize("augment", ["resized-crop", "pad-crop", "none"])
def test_the_number_of_workers_changes_nothing(root, four_cores, augment):
    changes = {"augment": augment, "in_memory": "never"}
    alone, two = (opened(root, workers=n, **changes) for n in (0, 2))
    for ours, theirs in zip(take(alone, 5, first_step=2), take(two, 5, first_step=2), strict=True):
        assert same(ours, theirs)
    for role in ("val", "test"):
        ours, theirs = (
            list(data.evaluation_batches(role, batch_size=4, device=CPU)) for data in (alone, two)
        )
        assert all(map(same, ours, theirs))
        assert len(ours) == len(theirs)
    assert multiprocessing.active_children() == []


def test_any_step_can_be_replayed(root):
    history = take(opened(root), 9)
    torch.manual_seed(1)
    for step in (0, 4, 8):
        assert same(take(opened(root), 1, first_step=step)[0], history[step])
    assert not same(take(opened(root), 1, seed=1)[0], history[0])


def test_workers_end_with_their_iterator(root, four_cores):
    batches = opened(root, workers=2).train_stream(batch_size=4, seed=0, device=CPU).batches()
    next(batches)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    batches.close()
    assert multiprocessing.active_children() == []
    assert [worker.exitcode for worker in workers] == [0, 0]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_does_not_break_the_workers(root, four_cores, signum):
    expected = take(opened(root), 8)
    batches = opened(root, workers=2).train_stream(batch_size=4, seed=0, device=CPU).batches()
    ours = [next(batches)]
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signum)  # as a terminal or a job manager does
    ours += itertools.islice(batches, 7)
    assert all(map(same, ours, expected))
    batches.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_one_clear_line(root, four_cores, workers):
    path = root / "test" / "cat" / "001.png"
    path.write_bytes(path.read_bytes()[:200])
    batches = opened(root, workers=workers).evaluation_batches("test", batch_size=1, device=CPU)
    next(batches)
    with pytest.raises(DataError, match=rf"^{path}: not a readable image \([^\n]+\)$"):
        next(batches)
    assert multiprocessing.active_children() == []


def test_a_killed_worker_is_no_bug(root, four_cores):
    batches = opened(root, workers=2).train_stream(batch_size=4, seed=0, device=CPU).batches()
    next(batches)

    @killed_workers_told()  # the news may come between two batches
    def go_on_without_a_worker():
        worker, _ = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        list(itertools.islice(batches, 20))

    with pytest.raises(DataError, match="a process that decodes images was killed") as problem:
        go_on_without_a_worker()
    batches.close()
    assert "data.workers" in problem.value.hint
    # The other one hears no SIGTERM: while it lives, this process could not end.
    assert multiprocessing.active_children() == []


def test_bad_images_are_found_before_training_comes_to_them(root):
    for name in ("000.png", "002.png"):
        (root / "train" / "dog" / name).write_text("no image")
    cut = root / "train" / "cat" / "001.png"
    cut.write_bytes(cut.read_bytes()[:200])
    with pytest.raises(DataError, match="2 images cannot be read") as problem:
        opened(root).images.make_ready(CPU)
    assert str(problem.value).count("dog/00") == 2
    with pytest.raises(DataError, match="3 images cannot be read"):
        opened(root, check="decode").images.make_ready(CPU)
    opened(root, skip_bad=True).images.make_ready(CPU)


def test_no_more_workers_than_cores(root, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    before = set(multiprocessing.active_children())  # an earlier test's may still be ending
    batches = opened(root, workers=64).evaluation_batches("test", batch_size=1, device=CPU)
    next(batches)
    assert len(set(multiprocessing.active_children()) - before) == 1
    batches.close()
