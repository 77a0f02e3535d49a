"""Exported programs compute what the network computes, and the folder is what it says it is."""

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import hdkd_cli
from hdkd_cli.errors import ExportError, UsageError
from hdkd_cli.evaluation.policy import read_policy
from hdkd_cli.evaluation.simulate import simulate, threshold_array
from hdkd_cli.inference import export as module
from hdkd_cli.inference.export import export, refuse_target
from hdkd_cli.inference.exported_network import Network
from hdkd_cli.inference.programs import trace_stages
from hdkd_cli.models.contract import MultiExitNet, Stage
from hdkd_cli.models.cost import measure_costs


@pytest.mark.parametrize("size", [1, 3, 17, 500])
def test_every_program_agrees_with_its_stage(network, learned, size):
    images, state = learned.images[:size], learned.net.start(learned.images[:size])
    tensors = [images.numpy()]
    with torch.no_grad():
        for stage, program, entry in zip(
            learned.net.stages, network.program_K, network.manifest["programs"], strict=True
        ):
            state = stage.body(state)
            logits, *tensors = program(tensors)  # fed with its own states all the way
            assert np.abs(logits - stage.head(state).numpy()).max() < 1e-4
            for name, tensor in zip(entry["outputs"][1:], tensors, strict=True):
                assert np.abs(tensor - state[name.removeprefix("out.")].numpy()).max() < 1e-4


@pytest.mark.parametrize("batch", [1, 64])
def test_500_images_leave_where_the_scores_say(network, learned, batch):
    images = learned.images.numpy()
    if batch == 1:
        images = images[:60]
    parts = [network.classify(images[i : i + batch]) for i in range(0, len(images), batch)]
    label, exit, confidence = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    result = simulate(learned.table, threshold_array(learned.policy.points))
    assert min(np.bincount(result.exit_PN[0], minlength=3)) > 20
    assert np.array_equal(exit, result.exit_PN[0, : len(images)])
    assert np.array_equal(label, result.prediction_PN[0, : len(images)])
    ours = learned.table.confidence_KN[exit, np.arange(len(images))]
    assert np.abs(confidence - ours).max() < 1e-4


def test_the_folder_says_what_it_holds(exported, learned):
    manifest = json.loads((exported / "manifest.json").read_text())
    assert manifest["schema"] == "hdkd/exported/1"
    assert manifest["network"] == "msdnet"
    assert manifest["input_shape"] == [3, 20, 20]
    assert manifest["macs"] == list(measure_costs(learned.net).macs_K)
    assert manifest["checkpoint_sha256"] == "5" * 64
    for entry in manifest["files"]:
        content = (exported / entry["name"]).read_bytes()
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    names = {path.name for path in exported.iterdir()}
    assert names == {entry["name"] for entry in manifest["files"]} | {"manifest.json"}
    assert names >= {"run.py", "policy.json", "labels.json", "README.txt"}
    assert [entry["file"] for entry in manifest["programs"]] == [
        f"stage{k}.{manifest['to']}" for k in (1, 2, 3)
    ]
    assert read_policy(exported / "policy.json") == learned.policy
    assert json.loads((exported / "labels.json").read_text()) == list("0123456789")
    for path in exported.glob("stage*"):
        content = path.read_bytes()
        assert b"site-packages" not in content
        assert str(Path(hdkd_cli.__file__).parent).encode() not in content


def test_programs_hand_on_by_name(exported):
    first, *later = json.loads((exported / "manifest.json").read_text())["programs"]
    assert first["inputs"] == ["in.image"]
    for entry, following in zip([first, *later], later, strict=False):
        written = [name.removeprefix("out.") for name in entry["outputs"][1:]]
        assert [name.removeprefix("in.") for name in following["inputs"]] == written
        assert "scale1" in written
    assert later[-1]["outputs"] == ["logits"]


def test_onnx_files_are_folded_and_dynamic(onnx_folder):
    onnx = pytest.importorskip("onnx")
    for entry in json.loads((onnx_folder / "manifest.json").read_text())["programs"]:
        graph = onnx.load(onnx_folder / entry["file"]).graph
        onnx.checker.check_model(onnx_folder / entry["file"], full_check=True)
        assert [value.name for value in graph.input] == entry["inputs"]
        assert [value.name for value in graph.output] == entry["outputs"]
        for value in (*graph.input, *graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
        assert not {n.op_type for n in graph.node} & {"BatchNormalization", "Dropout"}


@pytest.mark.parametrize("exported", ["pt2"], indirect=True)
def test_pt2_archives_hold_raw_bytes(exported, learned):
    weights = learned.net.stages[0].state_dict()
    with zipfile.ZipFile(exported / "stage1.pt2") as archive:
        content = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    config = json.loads(content["data/weights/model_weights_config.json"])["config"]
    assert {name.removeprefix("stage.") for name in config} == weights.keys()
    for name, entry in config.items():
        assert not entry["use_pickle"]
        wanted = weights[name.removeprefix("stage.")].numpy()
        raw = content[f"data/weights/{entry['path_name']}"]
        assert np.array_equal(np.frombuffer(raw, wanted.dtype), wanted.ravel())
    assert content["data/sample_inputs/model.pt"] == b""


class Odd(Stage):
    """Hands an entry through untouched, makes one for its head alone and one for nobody."""

    head_keys = ("own",)

    def __init__(self, number):
        super().__init__()
        self.number = number
        self.layer = nn.Conv2d(3, 3, 1)

    def body(self, state):
        features = self.layer(state["image"] if self.number == 0 else state["features"])
        through = state["image"] if self.number == 0 else state["through"]
        own = features + (through if self.number == 2 else 0)
        return {"own": own, "features": features, "through": through, "nobody": own}

    def head(self, state):
        return state["own"].mean((2, 3))


def odd_net(stage=Odd):
    torch.manual_seed(0)
    stages = [stage(number) for number in range(3)]
    net = MultiExitNet(stages, name="odd", num_classes=3, input_shape=(3, 5, 4), arguments={})
    return net.eval()


def test_only_what_is_read_later_is_handed_on():
    programs = trace_stages(odd_net())
    assert [p.reads for p in programs] == [("image",), *[("features", "through")] * 2]
    assert [p.writes for p in programs] == [*[("features", "through")] * 2, ()]


def write_odd(learned, folder, stage=Odd):
    net = odd_net(stage)
    export(
        net, learned.policy, "abc", learned.data.settings,
        to="pt2", folder=folder, checkpoint_sha256="0" * 64,
    )  # fmt: skip
    return net


def test_networks_of_other_makes(learned, tmp_path):
    net = write_odd(learned, tmp_path / "deep" / "out")
    network = Network(tmp_path / "deep" / "out", threads=1)
    images = torch.randn(7, 3, 5, 4)
    state = [images.numpy()]
    with torch.no_grad():
        for program, wanted in zip(network.program_K, net(images), strict=True):
            logits, *state = program(state)
            assert np.abs(logits - wanted.numpy()).max() < 1e-5


class Undecided(Odd):
    def body(self, state):
        mean = next(iter(state.values())).mean()
        return super().body(state) | ({"own": state["through"]} if mean > 1000 else {})


class Different(Odd):
    def head(self, state):
        return super().head(state) + (0.01 if torch.compiler.is_exporting() else 0)


class Wrapped(Odd):
    def head(self, state):
        if torch.compiler.is_exporting():
            raise RuntimeError("how to report this") from ValueError("the reason")
        return super().head(state)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Undecided, "stage 3 cannot be exported"),
        (Wrapped, "stage 3 cannot be exported: ValueError: the reason"),
        (Different, "stage 1: .*logits differs by 0.01"),
    ],
)
def test_what_cannot_be_exported_leaves_nothing(learned, tmp_path, stage, message):
    with pytest.raises(ExportError, match=message):
        write_odd(learned, tmp_path / "out", stage=stage)
    assert not list(tmp_path.iterdir())


def test_targets_that_are_refused(tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "empty").mkdir()
    for name in ("full", "full/x"):
        with pytest.raises(UsageError, match="exists already"):
            refuse_target("pt2", tmp_path / name)
    refuse_target("pt2", tmp_path / "empty")
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "onnxscript" else name)
    refuse_target("pt2", tmp_path / "new")
    with pytest.raises(UsageError, match=r"onnxscript: pip install 'hdkd\[export\]'$"):
        refuse_target("onnx", tmp_path / "new")
