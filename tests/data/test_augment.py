import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as v2

from hdkd_cli.data.in_memory.augment import crop_and_mirror, draw_crops


@settings(deadline=None)
@given(
    batch=st.integers(1, 5),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    padding=st.integers(0, 12),
    seed=st.integers(0, 2**31),
)
def test_crops_are_torchvisions_image_by_image(batch, height, width, padding, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (batch, 3, height, width), generator=generator, dtype=torch.uint8)
    crops = draw_crops(batch, padding=padding, flip=True, generator=generator)
    ours = crop_and_mirror(pixels, *crops, padding=padding)
    assert ours.dtype == torch.uint8
    for image, cut, top, left, mirror in zip(pixels, ours, *crops, strict=True):
        padded = v2.pad(image, [padding] * 4)
        theirs = v2.crop(padded, int(top), int(left), height, width)
        assert torch.equal(cut, v2.horizontal_flip(theirs) if mirror else theirs)


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_all_crops_are_equally_likely(padding):
    generator = torch.Generator().manual_seed(0)
    top, left, mirror = draw_crops(200_000, padding=padding, flip=True, generator=generator)
    places = 2 * padding + 1
    cells = ((top * places + left) * 2 + mirror).bincount(minlength=2 * places**2)
    expected = 200_000 / (2 * places**2)
    assert len(cells) == 2 * places**2
    assert ((cells - expected).abs() < 5 * expected**0.5).all()


def test_no_mirroring_unless_asked_for():
    generator = torch.Generator().manual_seed(0)
    assert draw_crops(100, padding=1, flip=False, generator=generator)[2].count_nonzero() == 0
