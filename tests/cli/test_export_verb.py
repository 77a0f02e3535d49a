"""``hdkd export``: what it prints, what it writes, what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdkd_cli import app, load
from hdkd_cli.evaluation.policy import ExitPolicy, read_policy
from hdkd_cli.inference import export as module
from hdkd_cli.inference import exported_latency
from hdkd_cli.inference.exported_network import Network
from hdkd_cli.library.run import Run
from hdkd_cli.models.cost import measure_costs

ANY = pytest.CaptureFixture[str]


def test_record_and_folder(
    trained: Path, tmp_path: Path, capsys: ANY, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported_latency, "SECONDS", 0.01)
    out = tmp_path / "deep" / "out"
    assert app.run(["export", str(trained), "--to", "pt2", "-o", str(out), "--measure"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    record = json.loads(captured.out)
    assert record["schema"] == "hdkd/export/1"
    assert record["folder"] == str(out)
    assert record["to"] == "pt2"
    sizes = {path.name: path.stat().st_size for path in out.iterdir()}
    assert {entry["name"]: entry["bytes"] for entry in record["files"]} == sizes
    assert [entry["batch"] for entry in record["latency"]] == [1, 64]
    for entry in record["latency"]:
        for name in ("exported_ms", "exported_full_ms", "pytorch_ms", "pytorch_full_ms"):
            assert entry[name] > 0

    family = read_policy(trained / "policies" / "geometric.json")
    written = read_policy(out / "policy.json")
    assert written.points == (family.select(),)
    assert written.fitted_on == family.fitted_on
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["checkpoint_sha256"] == family.fitted_on.checkpoint_sha256

    again = ["export", str(trained), "--to", "pt2", "-o", str(out)]
    assert app.run(again) == 2
    assert capsys.readouterr().err == (
        f"error: {out}: exists already and holds a whole export to pt2\n"
        "hint: use it, or name a new or empty folder\n"
    )
    (out / "stage2.pt2").write_bytes(b"damaged")
    assert app.run(again) == 2
    assert capsys.readouterr().err == (
        f"error: {out}: exists already\nhint: name a new or empty folder\n"
    )


def test_a_budget_chooses_the_point(
    trained: Path, tmp_path: Path, capsys: ANY, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[ExitPolicy] = []

    def export(_net: object, policy: ExitPolicy, *_: object, folder: Path, **__: object) -> None:
        chosen.append(policy)
        folder.mkdir()

    monkeypatch.setattr("hdkd_cli.library.exporting.export", export)
    for number, budget in enumerate(([], ["--budget", "1"], ["--budget", "0.6"])):
        out = f"-o{tmp_path / str(number)}"
        assert app.run(["export", str(trained), "--to", "pt2", out, *budget]) == 0
    full_macs = measure_costs(load(trained).net).macs_K[-1]
    assert [len(policy.points) for policy in chosen] == [1, 1, 1]
    best, within_all, within = (policy.points[0] for policy in chosen)
    assert best == read_policy(trained / "policies" / "geometric.json").select()
    assert within_all.val_macs <= full_macs
    assert within.val_macs <= 0.6 * full_macs


@pytest.mark.parametrize("budget", ["0", "lots", "10k"])
def test_impossible_budgets_are_2(trained: Path, tmp_path: Path, capsys: ANY, budget: str) -> None:
    out = tmp_path / "out"
    assert app.run(["export", str(trained), "--to=pt2", f"-o{out}", "--budget", budget]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert "budget" in captured.err
    assert captured.out == ""
    assert not out.exists()


def test_unwritable_output_is_3(trained: Path, capsys: ANY) -> None:
    assert app.run(["export", str(trained), "--to", "pt2", "-o", "/proc/nowhere/out"]) == 3
    captured = capsys.readouterr()
    assert captured.err.startswith("error: /proc/nowhere")
    assert len(captured.err.splitlines()) == 1


def test_a_missing_extra_is_2(
    trained: Path, tmp_path: Path, capsys: ANY, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", {}.get)
    assert app.run(["export", str(trained), "--to", "onnx", f"-o{tmp_path / 'out'}"]) == 2
    assert capsys.readouterr().err == (
        "error: --to onnx needs onnx, onnxscript, onnxruntime: pip install 'hdkd[export]'\n"
    )


def test_policy_of_another_checkpoint_is_3(trained: Path, tmp_path: Path, capsys: ANY) -> None:
    path = trained / "policies" / "geometric.json"
    policy = json.loads(path.read_text())
    policy["fitted_on"]["checkpoint_sha256"] = "0" * 64
    path.write_text(json.dumps(policy))
    assert app.run(["export", str(trained), "--to", "pt2", f"-o{tmp_path / 'out'}"]) == 3
    assert "calibrate" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_only_onnx_has_a_single_file(trained: Path, tmp_path: Path, capsys: ANY) -> None:
    out = tmp_path / "out"
    assert app.run(["export", str(trained), "--to", "pt2", "--single-file", f"-o{out}"]) == 2
    assert capsys.readouterr().err == (
        "error: --single-file: there is none for --to pt2\nhint: use --to onnx\n"
    )
    assert not out.exists()


@pytest.mark.slow
def test_a_single_file_answers_as_predict_does(
    trained: Path, tmp_path: Path, capsys: ANY, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(exported_latency, "SECONDS", 0.01)
    out, pictures = tmp_path / "out", [tmp_path / f"{i}.png" for i in range(20)]
    for i, picture in enumerate(pictures):
        Image.effect_noise((40, 36), 10 + 10 * i).convert("RGB").save(picture)
    command = ["export", str(trained), "--to", "onnx", "--single-file", f"-o{out}", "--measure"]
    assert app.run(command) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["shrinks"] is False
    assert [entry["batch"] for entry in record["latency"]] == [1, 64]
    network = Network(out, threads=1)
    for budget in ("0.5", "0.7", "0.95"):
        assert app.run(["predict", str(trained), *map(str, pictures), "--budget", budget]) == 0
        wanted = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        run = Run.open(trained)
        point = run.point(run.policy(), budget)
        network.thresholds_K = [2 if t is None else t for t in point.thresholds]
        exited = network.classify(np.stack([network.prepare(picture) for picture in pictures]))
        assert [one["label"] for one in wanted] == exited.label_B.tolist()
        assert [one["exit"] - 1 for one in wanted] == exited.exit_B.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("single_file", [[], ["--single-file"]])
def test_lower_precision_is_measured_and_has_its_own_policy(
    trained: Path,
    tmp_path: Path,
    capsys: ANY,
    monkeypatch: pytest.MonkeyPatch,
    single_file: list[str],
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(exported_latency, "SECONDS", 0.01)
    out = tmp_path / "out"
    command = ["export", str(trained), "--to", "onnx", "--precision", "int8", f"-o{out}"]
    assert app.run([*command, "--calibration-images", "20", "--budget", "0.6", *single_file]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("note: int8: ")
    assert len(captured.err.splitlines()) == 1
    record = json.loads(captured.out)
    assert record["precision"] == "int8"
    reduction = record["reduction"]
    assert (reduction["split"], reduction["samples"]) == ("val", 50)
    assert reduction["calibration_images"] == 20
    assert [entry["exit"] for entry in reduction["exits"]] == [1, 2, 3]
    scores = Run.open(trained).scores("val")
    for entry, logits_NC in zip(reduction["exits"], scores.logits_KNC, strict=True):
        right_N = logits_NC.argmax(-1) == scores.labels_N
        assert entry["fp32_top1_pct"] == pytest.approx(100 * right_N.mean())
        assert entry["agreement_pct"] > 50
        assert (
            abs(entry["top1_pct"] - entry["fp32_top1_pct"]) <= 100 - entry["agreement_pct"] + 1e-9
        )
    for entry in record["latency"]:
        assert entry["fp32_ms"] > 0
        assert entry["fp32_full_ms"] > 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["reduction"] == reduction
    written = read_policy(out / "policy.json")
    assert written.kind == "geometric"
    assert written.fitted_on.checkpoint_sha256 == manifest["weights_sha256"]
    assert written.points[0].target_macs == pytest.approx(0.6 * manifest["macs"][-1])
    # It is for these weights alone: the run refuses it.
    policy = str(out / "policy.json")
    assert app.run(["eval-budget", str(trained), "--policy", policy]) == 3
    assert "was fitted on checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "pt2", "--precision", "fp16"], "--precision fp16: not for --to pt2"),
        (
            ["--to", "onnx", "--precision", "fp16", "--calibration-images", "9"],
            "--calibration-images: fp16 needs none",
        ),
    ],
)
def test_precision_where_there_is_none_is_2(
    trained: Path, tmp_path: Path, capsys: ANY, options: list[str], message: str
) -> None:
    pytest.importorskip("onnxruntime")
    out = tmp_path / "out"
    assert app.run(["export", str(trained), *options, f"-o{out}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}\n")
    assert not out.exists()
