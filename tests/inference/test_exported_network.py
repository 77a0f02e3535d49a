"""What an exported network answers is what the package does, with numpy and Pillow alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hdkd_cli.data.pictures import to_rgb
from hdkd_cli.data.transform import read_image
from hdkd_cli.errors import DataError
from hdkd_cli.evaluation.policy import Combination
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.simulate import choose_exits
from hdkd_cli.evaluation.table import tabulate
from hdkd_cli.inference import exported_files, exported_network
from hdkd_cli.inference.any_image import Transform
from hdkd_cli.settings.data import DataSettings


class Table:
    """A network whose stages look their logits up; the state says which image each row is."""

    single_file = False

    def __init__(self, logits_KNC):
        self.program_K = [lambda state, z=z: [z[state[0]], state[0]] for z in logits_KNC]


@given(data=st.data())
def test_images_leave_as_in_the_simulation(data):
    exits, samples = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    logits_KNC = random.normal(size=(exits, samples, 3)).astype(np.float32) * 3
    raw = np.tril(random.random((exits, exits)) * (random.random((exits, exits)) < 0.7))
    raw[np.diag_indices(exits)] += 0.1
    weights = (raw / raw.sum(1, keepdims=True)).tolist()
    temperatures = (random.random(exits) + 0.5).tolist()
    kind = data.draw(st.sampled_from(exported_files.CONFIDENCES))
    combination = Combination(kind="mean", weights=tuple(map(tuple, weights)))
    scores = Scores(logits_KNC, np.zeros(samples, np.int64), tuple(range(1, exits + 1)))
    table = tabulate(scores, combination, temperatures, kind)
    draws = [data.draw(st.sampled_from([None, 0.2, 0.5, 0.9])) for _ in range(exits - 1)]

    network = exported_network.Network.__new__(exported_network.Network)
    network.single_file = False
    network.program_K = Table(logits_KNC).program_K
    network.thresholds_K = [np.float32(np.inf if t is None else t) for t in draws]
    network.weights_KK, network.temperature_K, network.confidence = weights, temperatures, kind
    exited = network.classify(np.arange(samples))

    wanted = choose_exits(table.confidence_KN, np.array([network.thresholds_K], np.float32))[0]
    everyone = np.arange(samples)
    assert np.array_equal(exited.exit_B, wanted)
    assert np.array_equal(exited.label_B, table.prediction_KN[wanted, everyone])
    assert np.allclose(exited.confidence_B, table.confidence_KN[wanted, everyone], atol=1e-6)


def test_what_is_not_a_number_is_no_answer():
    logits_KNC = np.zeros((2, 3, 4), np.float32)
    logits_KNC[1, 2, 0] = np.nan
    network = Table(logits_KNC)
    network.thresholds_K, network.confidence = [np.float32(0.9)], "max-prob"
    network.weights_KK, network.temperature_K = [[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0]
    with pytest.raises(exported_files.Unusable, match="NaN"):
        exported_network.Network.classify(network, np.arange(3))
    left = exported_network.Network.classify(network, np.arange(2))
    assert left.exit_B.tolist() == [1, 1]


def pictures():
    random = np.random.default_rng(0)
    for height, width in ((31, 47), (47, 31), (32, 32), (33, 32), (200, 9), (1, 1)):
        yield Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    rgb = Image.fromarray(random.integers(0, 256, (40, 51, 3), dtype=np.uint8))
    for mode in ("L", "1", "P", "CMYK", "RGBA", "LA", "YCbCr", "HSV", "F"):
        yield rgb.convert(mode)
    yield Image.fromarray(random.integers(0, 2**16, (40, 51), dtype=np.uint16))
    transparent = rgb.convert("P")
    transparent.info["transparency"] = bytes(range(256))
    yield transparent
    rotated = rgb.copy()
    rotated.getexif()[0x0112] = 6
    yield rotated


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("resize", "size"), [(None, 32), (40, 32), (37, 24)])
def test_images_are_prepared_bit_for_bit_as_in_evaluation(resize, size, interpolation):
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    settings = DataSettings(
        resize=resize, image_size=size, mean=mean, std=std, interpolation=interpolation
    )
    ours = Transform(settings)
    framing = {
        "resize": resize or size, "crop": size, "mean": mean, "std": std,
        "interpolation": f"{interpolation}, antialiased",
    }  # fmt: skip
    count = 0
    for image in pictures():
        image = image.convert("L") if image.mode == "F" else image
        found = exported_network.prepared(to_rgb(image), framing)
        assert np.array_equal(found, ours(image).numpy()), (image.mode, image.size)
        count += 1
    assert count == 18


def test_what_is_no_picture_is_told_as_in_evaluation(tmp_path):
    files = {name: tmp_path / name for name in ("text", "cut.png", "strip.png", "folder", "gone")}
    files["text"].write_text("no image")
    Image.new("RGB", (40, 40)).save(tmp_path / "whole.png")
    files["cut.png"].write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    Image.new("1", (1001, 1)).save(files["strip.png"])
    files["folder"].mkdir()
    network = exported_network.Network.__new__(exported_network.Network)
    for name, words in {
        "text": "none of PNG",
        "cut.png": "not a readable image",
        "strip.png": "1001×1 pixels",
        "gone": "no such file",
    }.items():
        with pytest.raises(DataError, match=words) as ours:
            read_image(files[name])
        with pytest.raises(exported_files.Unusable) as theirs:
            network.prepare(files[name])
        assert str(theirs.value) == str(ours.value)
    with pytest.raises(exported_files.Unusable, match=r"folder: Is a directory"):
        network.prepare(files["folder"])


def edited(path: Path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), "manifest.json: No such file"),
        (lambda f: (f / "policy.json").write_text("{"), "policy.json: is not JSON"),
        (lambda f: edited(f / "manifest.json", schema="x/9"), "is not of schema hdkd/exported/1"),
        (
            lambda f: edited(f / "policy.json", confidence="odd"),
            "confidence: is none of",
        ),
        (
            lambda f: edited(f / "policy.json", points=[{"thresholds": [0.5]}]),
            "policy.json: points.0.thresholds: 2 numbers",
        ),
        (
            lambda f: edited(f / "policy.json", fitted_on={"checkpoint_sha256": "0" * 64}),
            "policy.json: was fitted on other weights",
        ),
        (lambda f: next(f.glob("stage2.*")).write_bytes(b"x"), "does not match the manifest"),
        (lambda f: next(f.glob("stage2.*")).unlink(), "No such file"),
    ],
)
@pytest.mark.parametrize("exported", ["pt2"], indirect=True)
def test_a_damaged_folder_is_told(exported, tmp_path, damage, message):
    folder = Path(shutil.copytree(exported, tmp_path / "copy"))
    damage(folder)
    with pytest.raises(exported_files.Unusable, match=message):
        exported_network.Network(folder)


@pytest.mark.parametrize("exported", ["pt2"], indirect=True)
def test_thresholds_may_be_edited(exported, learned, tmp_path):
    folder = Path(shutil.copytree(exported, tmp_path / "copy"))
    policy = json.loads((folder / "policy.json").read_text())
    policy["points"][0]["thresholds"] = [None, 0.0]
    (folder / "policy.json").write_text(json.dumps(policy))
    exited = exported_network.Network(folder).classify(learned.images[:5].numpy())
    assert exited.exit_B.tolist() == [1] * 5
