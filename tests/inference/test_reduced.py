"""Programs of lower precision: smaller, nearly the same answers, and with their own thresholds."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hdkd_cli.errors import ExportError, UsageError
from hdkd_cli.evaluation.refit import refit
from hdkd_cli.evaluation.simulate import simulate, threshold_array
from hdkd_cli.evaluation.table import tabulate
from hdkd_cli.inference import exported_files, exported_network
from hdkd_cli.inference.collect import collect
from hdkd_cli.inference.export import export, refuse_target
from hdkd_cli.inference.programs import Programs
from hdkd_cli.models.cost import measure_costs

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
reduced = pytest.importorskip("hdkd_cli.inference.reduced")


@pytest.fixture(scope="module", params=["fp16", "int8"])
def small(request, onnx_programs, learned):
    if request.param == "fp16":
        files = list(map(reduced.halved, onnx_programs.files))
    else:
        files = reduced.quantised(onnx_programs.files, onnx_programs.traced, learned.images[:64])
    net = reduced.as_network(files, onnx_programs.traced, learned.net)
    return Programs(onnx_programs.traced, files, net, request.param)


def test_they_are_smaller_and_hardly_different(small, onnx_programs, learned):
    weights = sum(p.numel() for p in learned.net.parameters())
    saved = sum(map(len, onnx_programs.files)) - sum(map(len, small.files))
    if small.precision == "fp16":  # these are so small that int8's scales are as large as weights
        assert 1.5 * weights < saved < 2 * weights
    with torch.no_grad():
        wanted_KBC, found_KBC = learned.net(learned.images), small.net(learned.images)
    assert (wanted_KBC.argmax(-1) == found_KBC.argmax(-1)).double().mean() > 0.95
    gap = float((wanted_KBC - found_KBC).std() / wanted_KBC.std())
    assert 0 < gap < (0.002 if small.precision == "fp16" else 0.2)


def test_int8_computes_in_eight_bits_with_a_scale_per_channel(onnx_programs, learned):
    files = reduced.quantised(onnx_programs.files, onnx_programs.traced, learned.images[:64])
    for content, stage in zip(files, onnx_programs.files, strict=True):
        graph = onnx.load_from_string(content).graph
        tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
        makers = {name: node for node in graph.node for name in node.output}
        convolutions = [node for node in graph.node if node.op_type == "Conv"]
        before = onnx.load_from_string(stage).graph.node
        assert len(convolutions) == sum(node.op_type == "Conv" for node in before) > 0
        for node in convolutions:
            assert makers[node.input[0]].op_type == "DequantizeLinear"
            weight, scale, _ = (tensors[name] for name in makers[node.input[1]].input)
            assert weight.dtype == np.int8
            assert np.abs(weight.astype(int)).max() <= 64  # 7 bits, whatever the processor
            assert scale.shape == weight.shape[:1]
    again = reduced.quantised(onnx_programs.files, onnx_programs.traced, learned.images[:64])
    assert again == files
    assert reduced.quantised(onnx_programs.files, onnx_programs.traced, learned.images[:5]) != files


def test_fp16_stores_half_and_widens(onnx_programs):
    graph = onnx.load_from_string(reduced.halved(onnx_programs.files[0])).graph
    large = [t for t in graph.initializer if np.prod(t.dims) >= 16 and t.data_type in (1, 10)]
    assert {t.data_type for t in large} == {onnx.TensorProto.FLOAT16}
    casts = [node for node in graph.node if node.op_type == "Cast"]
    assert {node.input[0] for node in casts} == {t.name for t in large}


def test_weights_that_fp16_cannot_hold_are_refused(onnx_programs):
    model = onnx.load_from_string(onnx_programs.files[0])
    tensor = max(model.graph.initializer, key=lambda t: np.prod(t.dims))
    values = np.full(tensor.dims, 1e5, np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    with pytest.raises(ExportError, match=r"weights reach 1e\+05, fp16 ends at 65504"):
        reduced.halved(model.SerializeToString())


def test_what_onnxruntime_cannot_quantise_is_told(onnx_programs, learned):
    with pytest.raises(ExportError, match="stage 1 cannot be exported"):
        reduced.quantised([b"no program"], onnx_programs.traced[:1], learned.images[:4])


@pytest.mark.parametrize("single_file", [False, True])
def test_a_folder_has_its_own_policy(small, learned, tmp_path, single_file):
    data, batch = learned.data, [(learned.images, torch.zeros(len(learned.images), dtype=int))]
    costs = measure_costs(learned.net)
    meta = {"checkpoint_sha256": small.sha256, "split": "val"}
    scores = collect(small.net, batch, costs, meta)
    budget = 0.6 * costs.macs_K[-1]
    (point,) = learned.policy.points
    point = point.model_copy(update={"target_macs": budget})
    policy = refit(learned.policy.only(point), scores, pytest.fail, pytest.fail)
    folder = tmp_path / "out"
    export(
        learned.net, policy, data.classes, data.settings, to="onnx", folder=folder,
        checkpoint_sha256="5" * 64, single_file=single_file, programs=small,
    )  # fmt: skip
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["precision"] == small.precision
    assert manifest["weights_sha256"] == small.sha256 != manifest["checkpoint_sha256"]

    exited = exported_network.Network(folder, threads=1).classify(learned.images.numpy())
    table = tabulate(scores, policy.combination, policy.temperatures, policy.confidence)
    thresholds_1K = threshold_array(policy.points)
    wanted = simulate(table, thresholds_1K)
    assert len(set(exited.exit_B.tolist())) > 1
    # A threshold is the confidence of some image: rounding alone decides about that one.
    clear_N = (np.abs(table.confidence_KN[:-1] - thresholds_1K.T) > 1e-6).all(0)
    assert len(clear_N) - clear_N.sum() <= 4
    assert np.array_equal(exited.exit_B[clear_N], wanted.exit_PN[0][clear_N])
    assert np.array_equal(exited.label_B[clear_N], wanted.prediction_PN[0][clear_N])

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    other = json.loads((copy / "policy.json").read_text())
    other["fitted_on"]["checkpoint_sha256"] = "5" * 64  # that of the fp32 network
    (copy / "policy.json").write_text(json.dumps(other))
    with pytest.raises(exported_files.Unusable, match=r"policy\.json: was fitted on other weights"):
        exported_network.Network(copy)


def test_other_formats_have_no_lower_precision(tmp_path):
    with pytest.raises(UsageError, match="--precision int8: not for --to pt2"):
        refuse_target("pt2", tmp_path / "new", precision="int8")
