"""One ONNX file that stops by itself: the same answers, and nothing computed that is not needed."""

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hdkd_cli.errors import ExportError, UsageError
from hdkd_cli.evaluation.simulate import simulate, threshold_array
from hdkd_cli.inference.export import export, refuse_target
from hdkd_cli.inference.exported_network import Network
from hdkd_cli.inference.programs import Programs
from hdkd_cli.models.contract import MultiExitNet, Stage

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

NONE = np.empty(0, np.float32)


def opened(folder, options=None):
    return onnxruntime.InferenceSession(
        folder / "network.onnx", options, providers=["CPUExecutionProvider"]
    )


@pytest.fixture(scope="session")
def session(single_folder):
    return opened(single_folder)


def ask(session, images, thresholds=NONE):
    feeds = {"image": images, "thresholds": np.asarray(thresholds, np.float32)}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


@pytest.mark.parametrize("batch", [1, 64])
def test_500_images_leave_where_the_scores_say(session, single_folder, learned, batch):
    images = learned.images.numpy()[: 60 if batch == 1 else 500]
    parts = [ask(session, images[i : i + batch]) for i in range(0, len(images), batch)]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    result = simulate(learned.table, threshold_array(learned.policy.points))
    exit_N = result.exit_PN[0, : len(images)]
    assert len(set(exit_N)) == 3
    assert np.array_equal(found["exit"], exit_N + 1)
    assert np.array_equal(found["prediction"], result.prediction_PN[0, : len(images)])
    sure_N = learned.table.confidence_KN[exit_N, np.arange(len(images))]
    assert np.abs(found["confidence"] - sure_N).max() < 1e-4
    assert np.array_equal(found["logits"].argmax(-1), found["prediction"])
    runner = Network(single_folder, threads=1).classify(images)
    assert np.array_equal(runner.exit_B, exit_N)
    assert np.array_equal(runner.label_B, found["prediction"])


@pytest.mark.parametrize(
    ("thresholds", "exit"), [([0, 0], 1), ([2, 0], 2), ([np.inf, np.inf], 3), ([2, 2], 3)]
)
def test_one_file_serves_every_budget(session, learned, thresholds, exit):
    found = ask(session, learned.images[:20].numpy(), thresholds)
    assert (found["exit"] == exit).all()
    assert np.array_equal(found["prediction"], learned.table.prediction_KN[exit - 1, :20])


def test_no_thresholds_are_those_of_the_policy(session, learned):
    images = learned.images[:50].numpy()
    own = ask(session, images, learned.policy.points[0].thresholds)
    for name, values in ask(session, images).items():
        assert np.array_equal(values, own[name])


def test_any_other_number_of_thresholds_is_refused(session, learned):
    with pytest.raises(Exception, match=r"[Rr]eshape"):
        ask(session, learned.images[:1].numpy(), [0.5])


def test_what_is_not_a_number_says_so(session, learned):
    image = np.full_like(learned.images[:1].numpy(), np.nan)
    found = ask(session, image)
    assert np.isnan(found["confidence"]).all()
    assert found["exit"] == 3


def operators_run(folder, images, thresholds, tmp_path):
    """How many convolutions onnxruntime says that it computed."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = opened(folder, options)
    ask(session, images, thresholds)
    events = json.loads(Path(session.end_profiling()).read_text())
    return sum("Conv" in event.get("args", {}).get("op_name", "") for event in events)


def test_what_is_behind_an_exit_is_not_computed(single_folder, learned, tmp_path):
    one = learned.images[:1].numpy()
    first, second, last = (
        operators_run(single_folder, one, thresholds, tmp_path)
        for thresholds in ([0, 0], [2, 0], [2, 2])
    )
    assert 0 < first < second < last
    two = learned.images[:2].numpy()
    sure = learned.table.confidence_KN[0, :2]
    assert operators_run(single_folder, two, [min(sure) - 1e-3, 0], tmp_path) == first
    assert operators_run(single_folder, two, [sure.mean(), 0], tmp_path) == second


def test_the_graph(single_folder, learned):
    path = single_folder / "network.onnx"
    onnx.checker.check_model(path, full_check=True)
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True)
    assert [value.name for value in model.graph.input] == ["image", "thresholds"]
    assert {value.name for value in model.graph.output} == {
        "prediction", "exit", "confidence", "logits",
    }  # fmt: skip
    graph, large = model.graph, []
    while graph is not None:  # the weights of a stage lie in the branch that needs them
        large.append({t.name.split("/")[0] for t in graph.initializer if np.prod(t.dims) > 50})
        inner = [a.g for n in graph.node if n.op_type == "If" for a in n.attribute
                 if a.name == "else_branch" and len(a.g.node) > 5]  # fmt: skip
        graph = inner[0] if inner else None
    assert large == [{"stage1"}, {"stage2"}, {"stage3"}]
    told = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert told["labels"] == list("0123456789")
    assert told["policy"] == json.loads((single_folder / "policy.json").read_text())
    assert told["checkpoint_sha256"] == "5" * 64
    assert {"macs", "transform"} <= told.keys()
    assert b"site-packages" not in path.read_bytes()


def test_its_folder_has_a_runner(single_folder, tmp_path):
    folder = Path(shutil.copytree(single_folder, tmp_path / "copy"))
    Image.effect_noise((30, 25), 90).save(tmp_path / "a.png")
    command = [sys.executable, "-I", folder / "run.py", tmp_path / "a.png", tmp_path / "a.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = map(json.loads, done.stdout.splitlines())
    assert first == second
    assert first["schema"] == "hdkd/prediction/1"
    policy = json.loads((folder / "policy.json").read_text())
    for thresholds, exit in (([0, 0], 1), ([None, None], 3)):  # they may be edited
        policy["points"][0]["thresholds"] = thresholds
        (folder / "policy.json").write_text(json.dumps(policy))
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout.splitlines()[0])["exit"] == exit


class Mean(Stage):
    """The least that a stage can be."""

    head_keys = ("features",)

    def __init__(self, number):
        super().__init__()
        self.key = "features" if number else "image"
        self.layer = nn.Conv2d(3, 3, 1)

    def body(self, state):
        return {"features": self.layer(state[self.key])}

    def head(self, state):
        return 9 * state["features"].mean((2, 3))


class Different(Mean):
    def head(self, state):
        return super().head(state) + (0.01 if torch.compiler.is_exporting() else 0)


class Branching(Mean):
    def head(self, state):
        mean = super().head(state)
        return torch.cond(mean.sum() > 0, torch.sin, torch.cos, (mean,))


def small_net(stage):
    torch.manual_seed(0)
    stages = [stage(number) for number in range(3)]
    net = MultiExitNet(stages, name="small", num_classes=3, input_shape=(3, 5, 4), arguments={})
    return net.eval()


@cache
def small_programs():
    return Programs.of(small_net(Mean), "onnx")


def write_small(learned, folder, confidence="max-prob", stage=Mean):
    export(
        small_net(stage), learned.policy.model_copy(update={"confidence": confidence}), "abc",
        learned.data.settings, to="onnx", folder=folder, checkpoint_sha256="0" * 64,
        single_file=True, programs=small_programs() if stage is Mean else None,
    )  # fmt: skip


@pytest.mark.parametrize("confidence", ["max-prob", "entropy"])
def test_other_confidences(learned, tmp_path, confidence):
    write_small(learned, tmp_path / "out", confidence)  # which compares them with the network's
    found = ask(opened(tmp_path / "out"), np.zeros((2, 3, 5, 4), np.float32))
    p = np.exp(found["logits"][0]) / np.exp(found["logits"][0]).sum()
    wanted = {"max-prob": p.max(), "entropy": 1 + (p * np.log(p)).sum() / np.log(3)}[confidence]
    assert found["confidence"] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Different, "file: logits at exit 1 differs by 0.0"),
        (Branching, "branches"),
    ],
)
def test_what_cannot_be_exported_leaves_nothing(learned, tmp_path, stage, message):
    with pytest.raises(ExportError, match=message):
        write_small(learned, tmp_path / "out", stage=stage)
    assert not list(tmp_path.iterdir())


def test_other_formats_have_no_single_file(tmp_path):
    with pytest.raises(UsageError, match="--single-file"):
        refuse_target("pt2", tmp_path / "new", single_file=True)
