import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import CPU, noise
from PIL import Image
from torchvision.transforms.v2 import functional as v2

from hdkd_cli.data.transform import Normalise, describe, frame, read_image, to_pixels, to_rgb
from hdkd_cli.errors import DataError
from hdkd_cli.settings.schema import DataSettings


@settings(deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    size=st.integers(1, 20),
    margin=st.integers(0, 9),
)
def test_frame_is_torchvisions_resize_and_center_crop(width, height, size, margin):
    image = noise(1, height, width)
    settings = DataSettings(image_size=size, resize=size + margin)
    theirs = v2.center_crop(v2.resize(image, [size + margin], antialias=True), [size, size])
    ours = frame(image, settings)
    assert ours.size == (size, size)
    assert ours.tobytes() == theirs.tobytes()


def test_resize_defaults_to_the_image_size():
    image = noise(1, 40, 60)
    settings = DataSettings(image_size=16)
    assert frame(image, settings) == frame(image, settings.model_copy(update={"resize": 16}))


def test_normalise_is_torchvisions():
    settings = DataSettings(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)
    theirs = v2.normalize(
        v2.to_dtype(pixels, torch.float32, scale=True), [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    )
    ours = Normalise(settings, CPU)(pixels)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    assert pixels.flatten()[7] == 7  # the input is left alone


def test_to_pixels_is_torchvisions():
    image = noise(2, 5, 9)
    assert torch.equal(to_pixels(image), v2.pil_to_tensor(image))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_modes_become_rgb(mode):
    image = noise(3).convert("RGB").convert(mode)
    rgb = to_rgb(image)
    assert rgb.mode == "RGB"
    assert rgb.tobytes() == image.convert("RGB").tobytes()


def test_transparency_is_dropped(tmp_path):
    palette = noise(4).convert("P")
    opaque = palette.convert("RGB").tobytes()
    palette.save(tmp_path / "p.png", transparency=bytes(range(256)))
    assert read_image(tmp_path / "p.png").tobytes() == opaque  # without Pillow's warning
    rgba = noise(4).convert("RGBA")
    rgba.putalpha(0)
    assert to_rgb(rgba).tobytes() == noise(4).tobytes()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_upper_half(tmp_path, suffix):
    deep = np.array([[0, 255, 256], [0x7FFF, 0x8000, 0xFFFF]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
    rgb = np.asarray(read_image(tmp_path / f"deep.{suffix}"))
    assert (rgb == (deep >> 8)[..., None]).all()


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees"
    noise(5, 8, 16).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").size == (16, 8)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "ppm", "tif"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_damaged_images_are_named(tmp_path, suffix, keep):
    path = tmp_path / f"cut.{suffix}"
    noise(6, 64, 64).save(path)
    assert read_image(path).size == (64, 64)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError, match=rf"^{path}: not a readable image \(.+\)$"):
        read_image(path)


def test_other_files_are_no_images(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(DataError, match=r"a\.png: not a readable image"):
        read_image(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"b\.png: no such file"):
        read_image(tmp_path / "b.png")


def test_description_tells_transforms_apart():
    base = DataSettings()
    texts = {
        describe(base.model_copy(update=change))
        for change in (
            {},
            {"image_size": 28},
            {"resize": 36},
            {"mean": (0.1, 0.2, 0.3)},
            {"std": (0.1, 0.2, 0.3)},
        )
    }
    assert len(texts) == 5
    # what evaluation does not use is not in it
    assert describe(base.model_copy(update={"flip": True, "padding": 9, "root": "/x"})) in texts
    assert describe(base.model_copy(update={"resize": 32})) == describe(base)
