import itertools

import pytest
import torch
from pictures import CPU, folder_settings, rows, same, two_classes
from torchvision.transforms.v2 import functional as v2

from hdkd_cli.data import open_data
from hdkd_cli.data.in_memory import MemoryImages
from hdkd_cli.data.in_memory.augment import draw_crops
from hdkd_cli.data.order import derived_generator
from hdkd_cli.data.transform import Normalise


@pytest.fixture
def root(tmp_path):
    return two_classes(tmp_path)


def take(stream, count, first_step=0):
    return list(itertools.islice(stream.batches(first_step), count))


def test_training_batches_are_padded_cropped_mirrored_and_normalised(root):
    settings = folder_settings(root)
    data = open_data(settings)
    assert isinstance(data.images, MemoryImages)
    stream = data.train_stream(batch_size=5, seed=3, device=CPU)
    assert stream.steps_per_epoch == 3
    normalise = Normalise(settings, CPU)
    plain = data.images.source
    requests = itertools.islice(stream.order.requests(0), 5)
    for request, batch in zip(requests, stream.batches(0), strict=False):
        generator = derived_generator(3, "augment", request.epoch, request.step)
        crops = draw_crops(5, padding=2, flip=True, generator=generator)
        for index, image, label, top, left, mirror in zip(
            request.indices_B.tolist(), *batch, *crops, strict=True
        ):
            framed = v2.center_crop(v2.resize(plain.image(index), [10]), [8, 8])
            cut = v2.crop(v2.pad(v2.pil_to_tensor(framed), [2] * 4), int(top), int(left), 8, 8)
            assert torch.equal(image, normalise(v2.horizontal_flip(cut) if mirror else cut))
            assert label == plain.labels_N[index]


def test_any_step_can_be_replayed(root):
    data = open_data(folder_settings(root))
    stream = data.train_stream(batch_size=5, seed=0, device=CPU)
    history = take(stream, 8)
    torch.manual_seed(1)  # the global random state plays no part
    for step in (0, 3, 7):
        again = open_data(folder_settings(root)).train_stream(batch_size=5, seed=0, device=CPU)
        assert same(next(again.batches(step)), history[step])
    assert not same(history[0], history[3])  # another epoch
    other_seed = data.train_stream(batch_size=5, seed=1, device=CPU)
    assert not same(next(other_seed.batches()), history[0])


def test_reading_leaves_the_global_random_state_alone(root):
    torch.manual_seed(2)
    before = torch.get_rng_state()
    for in_memory in ("always", "never"):
        data = open_data(folder_settings(root, in_memory=in_memory))
        take(data.train_stream(batch_size=5, seed=0, device=CPU), 4)
        take(data.val_stream(batch_size=5, seed=0, device=CPU), 2)
        list(data.evaluation_batches("test", batch_size=5, device=CPU))
    assert torch.equal(torch.get_rng_state(), before)


def test_augment_none_changes_nothing(root):
    data = open_data(folder_settings(root, augment="none", flip=False))
    (batch,) = take(data.train_stream(batch_size=16, seed=0, device=CPU), 1)
    (plain,) = data.evaluation_batches("train", batch_size=16, device=CPU)
    assert rows(batch.images) == rows(plain.images)


def test_flip_alone_mirrors_about_half(root):
    data = open_data(folder_settings(root, augment="none", flip=True))
    (plain,) = data.evaluation_batches("train", batch_size=16, device=CPU)
    straight, mirrored = rows(plain.images), rows(plain.images.flip(-1))
    seen = [
        image
        for batch in take(data.train_stream(batch_size=16, seed=0, device=CPU), 20)
        for image in batch.images
    ]
    share = sum(bool(rows(image[None]) & mirrored) for image in seen) / len(seen)
    assert all(rows(image[None]) & (straight | mirrored) for image in seen)
    assert 0.4 < share < 0.6


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("in_memory", ["always", "never"])
def test_memory_order(root, channels_last, in_memory):
    data = open_data(folder_settings(root, in_memory=in_memory))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    streams = {"batch_size": 5, "device": CPU, "channels_last": channels_last}
    for batches in (
        data.train_stream(seed=0, **streams).batches(),
        data.val_stream(seed=0, **streams).batches(),
        data.evaluation_batches("test", **streams),
    ):
        assert next(batches).images.is_contiguous(memory_format=layout)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("in_memory", ["always", "never"])
def test_gpu_and_cpu_see_the_same_pictures(root, in_memory):
    data = open_data(folder_settings(root, in_memory=in_memory))
    gpu = torch.device("cuda")
    ours, theirs = (
        take(data.train_stream(batch_size=5, seed=0, device=device), 7) for device in (gpu, CPU)
    )
    for on_gpu, on_cpu in zip(ours, theirs, strict=True):
        assert on_gpu.images.device.type == on_gpu.labels.device.type == "cuda"
        assert torch.equal(on_gpu.labels.cpu(), on_cpu.labels)
        torch.testing.assert_close(on_gpu.images.cpu(), on_cpu.images, atol=1e-6, rtol=0)
