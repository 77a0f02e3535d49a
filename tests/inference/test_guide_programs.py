"""The programs in the guide that run the single file in other languages: the same answers."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from hdkd_cli.evaluation.simulate import simulate

onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.slow

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "deploy.md"
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def ran(command, where):
    done = subprocess.run(
        command, cwd=where, check=True, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(where)},
    )  # fmt: skip
    return done.stdout


def program(language, path):
    (text,) = re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), flags=re.S)
    path.write_text(text)


def answers_as_simulated(command, single_folder, learned, tmp_path):
    """Run what was built on 500 images, at the policy's thresholds and at others."""
    (tmp_path / "pixels.f32").write_bytes(learned.images.numpy().tobytes())
    own = learned.policy.points[0].thresholds
    for thresholds in (own, (0.3, 0.3), (0.9, 0.95)):
        given = [] if thresholds is own else [",".join(map(str, thresholds))]
        told = ran([*command, single_folder / "network.onnx", "pixels.f32", "20", *given], tmp_path)
        found = [json.loads(line) for line in told.splitlines()]
        result = simulate(learned.table, np.array([thresholds], np.float32))
        exit_N = result.exit_PN[0]
        assert len(set(exit_N.tolist())) > 1
        assert [exit - 1 for _, exit, _ in found] == exit_N.tolist()
        assert [label for label, _, _ in found] == result.prediction_PN[0].tolist()
        sure_N = learned.table.confidence_KN[exit_N, np.arange(len(exit_N))]
        assert np.abs([sure for _, _, sure in found] - sure_N).max() < 1e-4


def test_in_javascript(single_folder, learned, tmp_path):
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("needs node and npm")
    program("js", tmp_path / "classify.js")
    (tmp_path / "package.json").write_text('{"private": true}')
    # --ignore-scripts: what it would fetch besides is for GPUs.
    ran(
        ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "onnxruntime-node"],
        tmp_path,
    )
    answers_as_simulated(["node", "classify.js"], single_folder, learned, tmp_path)


def headers(folder):
    """Where onnxruntime's headers are: Debian's, of this machine or fetched into ``folder``."""
    installed = Path("/usr/include/onnxruntime")
    if installed.exists():
        return installed
    if not (shutil.which("apt-get") and KEYS.exists()):
        pytest.skip("needs libonnxruntime-dev")
    # Debian 13 is the first that has the package.
    known = ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"]
    mirrors = [line.split()[1] for line in ran(known, folder).splitlines() if "Debian " in line]
    if not mirrors:
        pytest.skip("needs libonnxruntime-dev, and apt knows no mirror of Debian")
    (folder / "lists" / "partial").mkdir(parents=True)
    source = f"deb [signed-by={KEYS}] {mirrors[0]} trixie main\n"
    (folder / "sources").write_text(source)
    own = {
        "Dir::Etc::sourcelist": folder / "sources", "Dir::Etc::sourceparts": "-",
        "Dir::State::Lists": folder / "lists", "Dir::Cache": folder, "APT::Sandbox::User": "root",
    }  # fmt: skip
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in own.items())]
    ran([*apt, "update"], folder)
    ran([*apt, "download", "libonnxruntime-dev"], folder)
    (package,) = folder.glob("*.deb")
    ran(["dpkg-deb", "-x", package, folder / "dev"], folder)
    return folder / "dev" / "usr" / "include" / "onnxruntime"


def test_in_cpp(single_folder, learned, tmp_path):
    """With the release library in the wheel from PyPI."""
    if not shutil.which("c++"):
        pytest.skip("needs a C++ compiler")
    libraries = list(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
    if not libraries:
        pytest.skip("this wheel of onnxruntime holds no library for C++")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libonnxruntime.so.1").symlink_to(libraries[0])
    (tmp_path / "apt").mkdir()
    program("cpp", tmp_path / "classify.cc")
    ran(
        ["c++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "classify.cc",
         f"-isystem{headers(tmp_path / 'apt')}", tmp_path / "lib" / "libonnxruntime.so.1",
         f"-Wl,-rpath,{tmp_path / 'lib'}", "-o", "classify"],
        tmp_path,
    )  # fmt: skip
    answers_as_simulated([tmp_path / "classify"], single_folder, learned, tmp_path)
