"""The runner repeats what the package does, with numpy and pillow alone."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hdkd_cli.choices import ConfidenceKind
from hdkd_cli.data.pictures import to_rgb
from hdkd_cli.evaluation.audit import Auditing, watching
from hdkd_cli.evaluation.policy import Combination
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.simulate import choose_exits
from hdkd_cli.evaluation.table import tabulate
from hdkd_cli.inference import exported_files, runner
from hdkd_cli.inference.predictor import Transform
from hdkd_cli.inference.standalone import standalone
from hdkd_cli.settings.data import DataSettings


def test_it_is_written_as_one_file_that_needs_nothing_of_this_package():
    tree = ast.parse(standalone(Path(runner.__file__)))
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not {name for name in imported if name.startswith("hdkd")}
    defined = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    assert len(defined) == len(set(defined))
    assert {"combine", "max_prob", "Watch", "main"} <= set(defined)


def test_the_runner_knows_all_confidences():
    assert get_args(ConfidenceKind) == exported_files.CONFIDENCES


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

    network = runner.Network.__new__(runner.Network)
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
        runner.Network.classify(network, np.arange(3))
    left = runner.Network.classify(network, np.arange(2))
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
        found = runner.prepared(to_rgb(image), framing)
        assert np.array_equal(found, ours(image).numpy()), (image.mode, image.size)
        count += 1
    assert count == 18


# The command, where neither torch nor hdkd can be imported.
ALONE = """
import runpy, sys
sys.modules |= {name: None for name in ("torch", "hdkd_cli", *sys.argv.pop(1).split(","))}
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def alone(folder, *arguments, without=""):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE, without, str(folder / "run.py"),
         *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def files(learned, tmp_path_factory):
    """Some of the digits as image files."""
    folder, source = tmp_path_factory.mktemp("digits"), learned.data.images.source
    indices = learned.data.splits["reserve"].indices_N[:40].tolist()
    for number, index in enumerate(indices):
        source.image(index).save(folder / f"{number:02}.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("exported", ["onnx"], indirect=True)
def test_an_audit_goes_on_where_another_ended(exported, network, learned, files, tmp_path):
    """One promise, one state file, here and in ``hdkd predict``; then the exit code of an alarm."""
    state = tmp_path / "state.json"
    asked = ["--audit", 1, "--max-risk", 0.9, "--audit-state", state]
    done = alone(exported, *files, *asked, "--batch-size", 7)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    last_B = network.classify(learned.images[: len(files)].numpy(), all_stay=True).label_B
    assert [record["audit"] for record in records] == [
        {"label": last, "class": str(last), "agrees": record["label"] == last}
        for record, last in zip(records, last_B.tolist(), strict=True)
    ]
    assert f"{len(files)} of {len(files)} images audited" in done.stderr
    assert done.stderr.count("drift (cost)") == 1  # of a policy that was never measured
    assert records[-1]["alarms"] == ["cost"]

    macs, policy = network.manifest["macs"], learned.policy
    sha256, told = network.manifest["checkpoint_sha256"], []
    auditing = Auditing(1, max_risk=0.9, state=state)
    watch = watching(policy, policy.points[0], macs, sha256, auditing, told.append)
    assert watch.exits_K.sum() == watch.agreed_2.sum() == len(files)
    assert told[0].startswith("since an earlier call, drift (cost)")
    watch.observe([0], [True])
    watch.keep()

    done = alone(exported, files[0], *asked, "--fail-on-drift")
    assert done.returncode == 5
    assert f"{len(files) + 2} of {len(files) + 2} images audited" in done.stderr
    done = alone(exported, files[0], *asked, "--delta", 0.3)
    assert done.returncode == 3
    assert "another policy, checkpoint or promise" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--audit", 0.5], 3, "promises nothing about answers"),
        (["--audit", 2], 2, "at most 1"),
        (["--fail-on-drift"], 2, "need --audit"),
        (["--audit", 0.5, "--max-risk", 1], 2, "between 0 and 1"),
    ],
)
@pytest.mark.parametrize("exported", ["onnx"], indirect=True)
def test_an_audit_that_cannot_be(exported, files, arguments, code, message):
    done = alone(exported, files[0], *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr


@pytest.mark.parametrize("exported", ["onnx"], indirect=True)
def test_the_command_without_torch(exported, network, learned, files):
    done = alone(exported, *files, "--batch-size", 7, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    records = [json.loads(line) for line in done.stdout.splitlines()]
    exited = network.classify(learned.images[: len(files)].numpy())
    macs = network.manifest["macs"]
    for i, record in enumerate(records):
        assert record == {
            "schema": "hdkd/prediction/1",
            "image": str(files[i]),
            "label": exited.label_B[i],
            "class": str(exited.label_B[i]),
            "exit": exited.exit_B[i] + 1,
            "confidence": pytest.approx(exited.confidence_B[i], abs=1e-5),
            "macs": macs[exited.exit_B[i]],
        }
    assert len(records) == 40
    assert len({record["exit"] for record in records}) > 1


def test_bad_images_are_told_and_the_others_classified(onnx_folder, files, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no image")
    short = tmp_path / "short.png"
    short.write_bytes(files[0].read_bytes()[:60])
    gone = tmp_path / "gone.png"
    done = alone(onnx_folder, text, files[0], gone, files[1], short, "--batch-size", 1)
    assert done.returncode == 3
    printed = [json.loads(line)["image"] for line in done.stdout.splitlines()]
    assert printed == [str(files[0]), str(files[1])]
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    for line, path in zip(lines, (text, gone, short), strict=True):
        assert line.startswith(f"error: {path}: ")


@pytest.mark.parametrize("arguments", [[], ["--batch-size", "0", "x"], ["--threads", "-1", "x"]])
def test_misuse_is_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        runner.main(arguments)
    assert end.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("runs", ["the exported runner", "hdkd"])
def test_onnxruntime_reports_to_nobody(runs, onnx_folder, files, tmp_path):
    """Its wheels keep what they are about to send in the user's cache folder."""
    code = (
        f"import runpy, sys; sys.argv = ['run.py', {str(files[0])!r}]\n"
        f"try: runpy.run_path({str(onnx_folder / 'run.py')!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        if runs == "the exported runner"
        else "import hdkd_cli.inference, onnxruntime\nonnxruntime.InferenceSession("
        f"{str(next(onnx_folder.glob('*.onnx')))!r})\n"
    )
    unset = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS")
    quiet = {name: value for name, value in os.environ.items() if name not in unset}
    homes = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME")}
    subprocess.run([sys.executable, "-c", code], env=quiet | homes, capture_output=True, check=True)
    assert not list(tmp_path.rglob("*onnxruntime*"))


def test_a_missing_package_is_2(onnx_folder, files):
    done = alone(onnx_folder, files[0], without="onnxruntime")
    assert done.returncode == 2
    assert done.stderr == "error: needs onnxruntime: pip install onnxruntime\n"


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
        runner.Network(folder)


@pytest.mark.parametrize("exported", ["pt2"], indirect=True)
def test_thresholds_may_be_edited(exported, learned, tmp_path):
    folder = Path(shutil.copytree(exported, tmp_path / "copy"))
    policy = json.loads((folder / "policy.json").read_text())
    policy["points"][0]["thresholds"] = [None, 0.0]
    (folder / "policy.json").write_text(json.dumps(policy))
    exited = runner.Network(folder).classify(learned.images[:5].numpy())
    assert exited.exit_B.tolist() == [1] * 5
