"""The page: what its folder holds, what it refuses, and how it prepares images."""

import hashlib
import json
import re
import shutil
import subprocess
import tarfile

import numpy as np
import PIL
import pytest
from PIL import Image

from hdkd_cli.data.transform import Normalise, frame, to_pixels
from hdkd_cli.errors import UsageError
from hdkd_cli.evaluation.policy import OperatingPoint
from hdkd_cli.inference.web import runtime
from hdkd_cli.inference.web.folder import PAGE, Example, stops_of, write_page
from hdkd_cli.inference.web.runtime import read_runtime

CONTENT = {"a.mjs": b"export", "b.wasm": b"\0asm"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder as `npm install` makes it, of files whose checksums are the pinned ones."""
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
    monkeypatch.setattr(runtime, "FILES", sums)
    folder = tmp_path / "package"
    (folder / "dist").mkdir(parents=True)
    for name, content in CONTENT.items():
        (folder / "dist" / name).write_bytes(content)
    return folder


def packed(folder):
    """The same as `npm pack` makes it."""
    with tarfile.open(folder.with_suffix(".tgz"), "w:gz") as archive:
        archive.add(folder, "package")
    return folder.with_suffix(".tgz")


def test_a_runtime_is_read_as_npm_packs_or_installs_it(package):
    assert read_runtime(package) == CONTENT
    assert read_runtime(packed(package)) == CONTENT


def test_a_runtime_of_another_version_is_refused(package):
    (package / "dist" / "b.wasm").write_bytes(b"other")
    for path in (package, packed(package)):
        with pytest.raises(UsageError, match=r"b\.wasm is not that of .* checksum") as caught:
            read_runtime(path)
        assert f"npm pack onnxruntime-web@{runtime.VERSION}" in str(caught.value.hint)


def test_what_is_no_runtime_is_refused(package, tmp_path):
    (tmp_path / "text").write_text("no archive")
    (tmp_path / "short.tgz").write_bytes(packed(package).read_bytes()[:50])
    (package / "dist" / "b.wasm").unlink()
    (package / "dist" / "b.wasm").symlink_to("/etc/passwd")
    for path in (
        tmp_path / "absent", tmp_path / "text", tmp_path / "short.tgz", tmp_path, packed(package),
    ):  # fmt: skip
        with pytest.raises(UsageError, match="is no package of onnxruntime-web"):
            read_runtime(path)
    with pytest.raises(UsageError, match="nothing is downloaded unasked"):
        read_runtime(None)


def point(macs, *thresholds, top1_pct=50.0):
    return OperatingPoint(
        target_macs=None, thresholds=thresholds, val_macs=macs, val_top1_pct=top1_pct
    )


def test_stops_rise_in_cost_and_end_with_the_full_network(learned):
    points = (point(30, 0.8, None), point(10, 0.1, 0.1), point(20, 0.3, 0.2), point(10, 0.1, 0.1))
    policy = learned.policy.model_copy(update={"points": (*points, point(99, None, None))})
    stops = stops_of(policy, full_macs=100, full_top1_pct=60)
    assert [stop.val_macs for stop in stops] == [10, 20, 30, 100]
    assert stops[-1].thresholds == (None, None)
    assert stops[-1].val_top1_pct == 60


@pytest.fixture(scope="module")
def examples(learned):
    dice = np.random.default_rng(0)
    shapes = ((20, 20, 3), (90, 50, 3))
    return [
        Example(Image.fromarray(dice.integers(0, 256, shape).astype(np.uint8)), label)
        for label, shape in enumerate(shapes)
    ]


@pytest.fixture(scope="module")
def page(learned, single_folder, examples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "out"
    stops = stops_of(learned.policy, full_macs=learned.table.macs_K[-1], full_top1_pct=70)
    write_page(single_folder, stops, examples, learned.data.settings, CONTENT, folder)
    return folder


def test_the_folder_is_whole(page, learned):
    files = {path.relative_to(page).as_posix() for path in page.rglob("*") if path.is_file()}
    own = {path.name for path in PAGE.iterdir()} - {"index.html"}
    assert files == {
        "index.html", "network.json", "network.onnx", "README.txt", "examples/01.png",
        "examples/02.png", "runtime/a.mjs", "runtime/b.wasm", *(f"page/{name}" for name in own),
    }  # fmt: skip
    about = json.loads((page / "network.json").read_text())
    assert about["schema"] == "hdkd/page/1"
    assert about["labels"] == list("0123456789")
    assert about["macs"] == list(learned.table.macs_K)
    assert about["confidence"] == "margin"
    assert about["start"] == 0
    assert [stop["thresholds"] for stop in about["stops"]] == [
        list(learned.policy.points[0].thresholds), [None, None],
    ]  # fmt: skip
    assert about["examples"] == [
        {"file": "examples/01.png", "label": 0}, {"file": "examples/02.png", "label": 1},
    ]  # fmt: skip


def test_examples_are_seen_as_their_images_are(page, examples, learned):
    settings = learned.data.settings
    for number, example in enumerate(examples, 1):
        shown = Image.open(page / f"examples/{number:02}.png")
        assert shown.size == (settings.shorter_side,) * 2
        assert frame(shown, settings).tobytes() == frame(example.image, settings).tobytes()


def test_the_page_asks_nobody_else(page):
    for path in [page / "index.html", *(page / "page").iterdir()]:
        addresses = set(re.findall(r"https?://[^\s\"'<]+", path.read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg"}
    policy = re.search(
        r'Content-Security-Policy" content="([^"]+)"', (page / "index.html").read_text()
    )
    assert policy is not None
    assert policy[1].startswith("default-src 'none'")
    assert re.search(r"connect-src 'self';", policy[1])


def test_what_the_page_loads_is_there(page):
    """Names in HTML and imports lead to files; runtime/ has stand-ins here."""
    html = (page / "index.html").read_text()
    for name in re.findall(r'(?:href|src)="([^"]+)"', html):
        assert (page / name).is_file(), name
    for script in (page / "page").glob("*.js"):
        for name in re.findall(r"(?:from |URL\()'([^'`$]+)'", script.read_text()):
            target = (script.parent / name).resolve()
            known = (
                target.name in runtime.FILES
                if target.parent.name == "runtime"
                else target.is_file()
            )
            assert known, name


SIZES = [
    (20, 20), (32, 20), (20, 47), (640, 480), (301, 77), (33, 1900), (20, 1500), (7, 9), (24, 25),
    (21, 40),
]  # fmt: skip


# From this version on, Pillow resizes tall images down first; before, they differ by a grey level.
PILLOW = 13


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize", [20, 23])
def test_images_are_prepared_as_evaluation_does(learned, tmp_path, interpolation, resize):
    """The arithmetic of prepare.js, byte by byte, under Node."""
    if not shutil.which("node"):
        pytest.skip("needs node")
    settings = learned.data.settings.model_copy(
        update={"image_size": 20, "resize": resize, "interpolation": interpolation}
    )
    transform = {
        "resize": resize, "crop": 20, "interpolation": f"{interpolation}, antialiased",
        "mean": settings.mean, "std": settings.std,
    }  # fmt: skip
    dice = np.random.default_rng(1)
    images = [
        Image.fromarray(dice.integers(0, 2, (height, width, 3)).astype(np.uint8) * 255)
        for width, height in SIZES
    ]
    for i, image in enumerate(images):
        (tmp_path / f"{i}.rgba").write_bytes(image.convert("RGBA").tobytes())
    shutil.copy(PAGE / "prepare.js", tmp_path / "prepare.mjs")
    (tmp_path / "all.mjs").write_text(
        "import { readFileSync, writeFileSync } from 'node:fs';\n"
        "import { frame, prepare } from './prepare.mjs';\n"
        f"const transform = {json.dumps(transform)};\n"
        f"for (const [i, [width, height]] of {json.dumps(SIZES)}.entries()) {{\n"
        "  const image = { width, height, data: readFileSync(`${i}.rgba`) };\n"
        "  writeFileSync(`${i}.rgb`, frame(image, transform).data);\n"
        "  writeFileSync(`${i}.f32`, new Uint8Array(prepare(image, transform).buffer));\n"
        "}\n"
    )
    subprocess.run(["node", "all.mjs"], cwd=tmp_path, check=True)
    for i, image in enumerate(images):
        if image.height > image.width and int(PIL.__version__.partition(".")[0]) < PILLOW:
            continue
        seen = frame(image, settings)
        assert (tmp_path / f"{i}.rgb").read_bytes() == seen.tobytes(), image.size
        wanted = Normalise(settings, learned.images.device)(to_pixels(seen))
        found = np.frombuffer((tmp_path / f"{i}.f32").read_bytes(), np.float32)
        assert np.array_equal(found, wanted.numpy().ravel())
