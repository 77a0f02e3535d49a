import json
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pictures import CPU, noise
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from hdkd_cli.data.pictures import STRIP, to_rgb
from hdkd_cli.data.transform import Normalise, frame, read_image, to_pixels
from hdkd_cli.errors import DataError
from hdkd_cli.settings.data import DataSettings
from hdkd_cli.settings.transform import describe


@settings(deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    size=st.integers(1, 20),
    margin=st.integers(0, 9),
    kind=st.sampled_from(["bilinear", "bicubic"]),
)
def test_frame_is_torchvisions_resize_and_center_crop(width, height, size, margin, kind):
    image = noise(1, height, width)
    assume(max(width, height) <= STRIP * min(width, height))
    settings = DataSettings(image_size=size, resize=size + margin, interpolation=kind)
    mode = InterpolationMode(kind)
    resized = v2.resize(image, [size + margin], interpolation=mode, antialias=True)
    theirs = v2.center_crop(resized, [size, size])
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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = noise(5, 8, 16)
    stored.save(tmp_path / "turned.png", exif=exif)
    turned = {
        1: stored,
        2: stored.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: stored.rotate(180),
        4: stored.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: stored.transpose(Image.Transpose.TRANSPOSE),
        6: stored.rotate(-90, expand=True),
        7: stored.transpose(Image.Transpose.TRANSVERSE),
        8: stored.rotate(90, expand=True),
    }
    assert read_image(tmp_path / "turned.png").tobytes() == turned[orientation].tobytes()
    assert json.loads(describe(DataSettings()))["orientation"] == "exif"


def test_only_the_first_picture_of_a_gif_is_read(tmp_path):
    first, second = (noise(i).convert("P") for i in (1, 2))
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[second])
    assert read_image(tmp_path / "moving.gif").tobytes() == first.convert("RGB").tobytes()


def test_postscript_is_never_started(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("was started"))
    noise(1).save(tmp_path / "picture.png", format="eps")
    with pytest.raises(DataError, match="not a readable image"):
        read_image(tmp_path / "picture.png")


def test_a_pipe_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: is not a regular file"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(1, 1001), (60_000_000, 1)])
def test_strips_are_refused_by_their_header(tmp_path, size):
    ihdr = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + ihdr
    header = struct.pack(">I", len(ihdr)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    data = b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    (tmp_path / "strip.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + data)
    with pytest.raises(DataError, match=rf"strip\.png: is {size[0]}×{size[1]} pixels"):
        read_image(tmp_path / "strip.png")


def test_a_strip_is_cut_before_it_is_resized(monkeypatch):
    sizes = []
    resize = Image.Image.resize

    def recorded(image, size, *args, **kwargs):
        sizes.append(size)
        return resize(image, size, *args, **kwargs)

    settings = DataSettings(image_size=224, resize=256)
    smooth = Image.linear_gradient("L").convert("RGB").resize((3, 300))
    theirs = v2.center_crop(v2.resize(smooth, [256], antialias=True), [224, 224])
    monkeypatch.setattr(Image.Image, "resize", recorded)
    ours = frame(smooth, settings)
    difference = np.asarray(ours).astype(int) - np.asarray(theirs)
    assert np.abs(difference).max() <= 1  # Pillow rounds between its two passes
    assert sizes == [(224, 224)]


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
            {"interpolation": "bicubic"},
            {"mean": (0.1, 0.2, 0.3)},
            {"std": (0.1, 0.2, 0.3)},
        )
    }
    assert len(texts) == 6
    # what evaluation does not use is not in it
    assert describe(base.model_copy(update={"flip": True, "padding": 9, "root": "/x"})) in texts
    assert describe(base.model_copy(update={"resize": 32})) == describe(base)
