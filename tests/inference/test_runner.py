"""The exported program: one file, without torch and without this package."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from hdkd_cli.choices import ConfidenceKind
from hdkd_cli.evaluation.audit import Auditing, watching
from hdkd_cli.inference import exported_files, runner
from hdkd_cli.inference.standalone import standalone


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
