"""examples/serve.py under load, on this machine alone: nothing is lost, who is refused is told."""

import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdkd_cli import app
from hdkd_cli.inference.exported_network import Network

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))


def listens_on(port: int) -> set[str]:
    """Addresses of this machine, as /proc/net/tcp writes them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[1].endswith(f":{port:04X}")}


def leave_half_at_the_first_exit(exported: Path, files: list[Path]) -> None:
    network = Network(exported, threads=1)
    network.thresholds_K = [np.float32(0), np.float32(0)]
    sure = network.classify(np.stack([network.prepare(file) for file in files])).confidence_B
    policy = json.loads((exported / "policy.json").read_text())
    policy["points"][0]["thresholds"] = [float(np.median(sure)), None]
    (exported / "policy.json").write_text(json.dumps(policy))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
def test_nothing_is_lost_under_load(trained: Path, tmp_path: Path) -> None:
    for package in ("litserve", "python_multipart", "onnxruntime"):
        pytest.importorskip(package)
    import serving

    exported, files = tmp_path / "exported", [tmp_path / f"{i:02}.png" for i in range(20)]
    for i, file in enumerate(files):
        Image.effect_noise((40, 36), 10 + 10 * i).convert("RGB").save(file)
    assert app.run(["export", str(trained), "--to", "onnx", f"-o{exported}"]) == 0
    leave_half_at_the_first_exit(exported, files)
    bad = len(files)
    images = [*(file.read_bytes() for file in files), b"this is no image"]
    network = Network(exported, threads=1)
    with serving.serving(exported, "--most-inside", "24", "--batch-size", "8") as server:
        assert listens_on(server.port) == {"0100007F"}  # 127.0.0.1
        answers = serving.load(server.port, images, clients=8, requests=210)
        rush = serving.load(server.port, images[:bad], clients=60, requests=240)
    until = time.monotonic() + 10  # what cleans up after the others ends last
    while server.processes() and time.monotonic() < until:
        time.sleep(0.1)
    assert not server.processes()

    assert sorted(one.number for one in answers) == list(range(210))
    good = [one for one in answers if one.image != bad]
    assert {one.status for one in good} == {200}
    assert serving.same(network, files, good) == len(good) == 200
    assert {one.said["exit"] for one in good} == {1, 3}
    told = {(one.status, one.said["error"]) for one in answers if one.image == bad}
    assert told == {(400, "not a readable image")}  # and its batch took no harm

    assert sorted(one.number for one in rush) == list(range(240))
    statuses = Counter(one.status for one in rush)
    assert set(statuses) == {200, 503}
    let_in = [one for one in rush if one.status == 200]
    assert serving.same(network, files, let_in) == len(let_in) > 0
    assert all(one.said == {"error": "busy"} for one in rush if one.status == 503)
