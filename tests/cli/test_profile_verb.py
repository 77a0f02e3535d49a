"""``hdkd profile`` and ``hdkd eval-budget --measured``: records, never speeds."""

import json
import shutil
from pathlib import Path

import pytest
from picture_runs import write_pictures

from hdkd_cli import app

ANY = pytest.CaptureFixture[str]


def test_a_run_under_its_policy(trained: Path, capsys: ANY) -> None:
    arguments = ["--budget", "0.6", "--seconds", "1", "--batch-size", "16"]
    assert app.run(["profile", str(trained), *arguments]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["schema"] == "hdkd/profile/1"
    assert [e["exit"] for e in record["exits"]] == [1, 2, 3]
    first, *_, last = record["exits"]
    assert first["latency_ms"]["batch"] == 1
    assert first["latency_ms"]["median"] <= first["latency_ms"]["p95"]
    assert first["macs"] < last["macs"]
    tried = {(trial["batch"], trial["runtime"]): trial["median"] for trial in record["runtimes"]}
    for latency in (last["latency_ms"], last["batch_latency_ms"]):
        of_size = {name: ms for (batch, name), ms in tried.items() if batch == latency["batch"]}
        assert latency["runtime"] == min(of_size, key=lambda name: of_size[name])
        assert latency["median"] == pytest.approx(min(of_size.values()))
    policy = record["policy"]
    assert sum(policy["exit_share"]) == pytest.approx(1)
    macs = sum(s * e["macs"] for s, e in zip(policy["exit_share"], record["exits"], strict=True))
    assert policy["macs"] == pytest.approx(macs)
    for part in (policy, policy["one_by_one"]):
        realised = part["images_per_s"] / part["full_images_per_s"]
        assert part["realised_speedup"] == pytest.approx(realised)
        assert part["last_exit_realised_speedup"] == pytest.approx(
            part["images_per_s"] / part["last_exit_images_per_s"]
        )
        # It runs no head but its own.
        assert part["last_exit_theoretical_speedup"] <= part["theoretical_speedup"]
        assert part["realised_over_theoretical"] == pytest.approx(
            realised / part["theoretical_speedup"]
        )


def test_one_runtime_alone(trained: Path, capsys: ANY) -> None:
    pytest.importorskip("onnxruntime")
    for name in ("torch", "onnx"):
        arguments = ["--seconds", "1", "--batch-size", "8", "--runtime", name, "--budget", "0.6"]
        assert app.run(["profile", str(trained), *arguments]) == 0
        record = json.loads(capsys.readouterr().out)
        assert {trial["runtime"] for trial in record["runtimes"]} == {name}
        assert record["policy"]["runtime"] == record["policy"]["full_runtime"] == name
        assert 0 < record["policy"]["theoretical_speedup"] < 5  # onnxruntime counts no operations


def test_a_model_of_a_library_needs_no_preset(capsys: ANY) -> None:
    small = ["--set", "data.image_size=32", "--set", "model.exits=layer1,layer3"]
    arguments = ["--seconds", "1", "--batch-size", "1"]
    assert app.run(["profile", "torchvision:resnet18", *small, *arguments]) == 0
    exits = json.loads(capsys.readouterr().out)["exits"]
    assert len(exits) == 3
    # all of ResNet-18, and two heads: BatchNorm and a linear layer for 1000 classes
    heads = sum(2 * width + (width + 1) * 1000 for width in (64, 256))
    assert exits[-1]["params"] == 11_689_512 + heads


def test_the_classes_of_a_preset_are_those_of_the_images(tmp_path: Path, capsys: ANY) -> None:
    data = write_pictures(tmp_path, {"train": 20, "test": 2})
    small = ["--set", "model.exits=2", "--set", "model.channels=4"]
    arguments = ["--data-dir", str(data), "--seconds", "1", "--batch-size", "1"]
    assert app.run(["profile", "folder64-msdnet5", *small, *arguments]) == 0
    two = json.loads(capsys.readouterr().out)["exits"][0]["params"]
    for part in ("train", "test"):
        shutil.copytree(data / part / "cat", data / part / "owl")
    assert app.run(["profile", "folder64-msdnet5", *small, *arguments]) == 0
    three = json.loads(capsys.readouterr().out)["exits"][0]["params"]
    assert three == two + 128 + 1  # a row of the first head, and its bias


def test_a_preset_has_no_policy(capsys: ANY) -> None:
    assert app.run(["profile", "digits", "--seconds", "1", "--batch-size", "4"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["policy"] is None
    assert app.run(["profile", "digits", "--budget", "0.5"]) == 2
    assert "need a run" in capsys.readouterr().err
    assert app.run(["profile", "digitz"]) == 2


def test_measured_points(trained: Path, capsys: ANY, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hdkd_cli.inference.measured.SECONDS", 0.5)
    assert app.run(["eval-budget", str(trained), "--measured"]) == 0
    captured = capsys.readouterr()
    points = json.loads(captured.out)["points"]
    assert all(p["seconds_per_image"] > 0 and p["measured_speedup"] > 0 for p in points)
    assert "differ" not in captured.err
    assert app.run(["eval-budget", "--scores", "x", "--measured"]) == 2
    assert "--measured" in capsys.readouterr().err
