"""A network in onnxruntime answers as it does in torch, and ``auto`` finds out which is faster."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hdkd_cli.errors import ExportError, UsageError
from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.inference import runtime
from hdkd_cli.inference.early_exit import EarlyExit, Exited
from hdkd_cli.inference.runtime import Runtimes
from hdkd_cli.inference.stream import Regrouped
from hdkd_cli.models import RANet
from hdkd_cli.models.contract import MultiExitNet, Stage, narrow

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
CPU = torch.device("cpu")
MACS = (1, 2, 4)
COMBINATIONS = [fixed_combination(kind, MACS) for kind in ("single", "mean", "cost-weighted")]


@pytest.fixture(scope="module")
def nets(learned):
    """The same network in torch and in onnxruntime, and 60 images."""
    both = Runtimes(learned.net, CPU, "auto").all()
    return both["torch"], both["onnx"], learned.images[:60]


def in_batches(net, policy, images, size, regroup) -> Exited:
    if not regroup:
        early = EarlyExit(net, policy)
        parts = [early(batch) for batch in torch.split(images, size)]
    else:
        stream = Regrouped(net, policy, batch_size=size)
        parts = [stream.feed(batch) for batch in torch.split(images, 7)] + [stream.flush()]
    return Exited(
        *(np.concatenate([getattr(p, name) for p in parts])
          for name in ("prediction_B", "exit_B", "confidence_B"))
    )  # fmt: skip


@settings(max_examples=40)
@given(
    thresholds=st.tuples(*[st.none() | st.floats(0, 1)] * 2),
    combination=st.sampled_from(COMBINATIONS),
    kind=st.sampled_from(["max-prob", "entropy", "margin"]),
    size=st.sampled_from([1, 8, 60]),
    regroup=st.booleans(),
)
def test_the_same_answers(nets, learned, thresholds, combination, kind, size, regroup):
    torch_net, onnx_net, images = nets
    point = learned.policy.points[0].model_copy(update={"thresholds": thresholds})
    policy = learned.policy.model_copy(
        update={"points": (point,), "combination": combination, "confidence": kind}
    )
    ours = in_batches(torch_net, policy, images, size, regroup)
    theirs = in_batches(onnx_net, policy, images, size, regroup)
    same_B = ours.exit_B == theirs.exit_B
    assert (ours.prediction_B == theirs.prediction_B)[same_B].all()
    assert np.allclose(ours.confidence_B[same_B], theirs.confidence_B[same_B], atol=1e-4)
    for b in np.flatnonzero(~same_B):  # only where a confidence meets its threshold
        first = min((ours, theirs), key=lambda p: int(p.exit_B[b]))
        assert float(first.confidence_B[b]) == pytest.approx(
            thresholds[int(first.exit_B[b])], abs=1e-4
        )


def test_the_logits_of_all_exits(nets):
    torch_net, onnx_net, images = nets
    with torch.no_grad():
        assert torch.allclose(torch_net(images), onnx_net(images), atol=1e-4)


def test_a_stream_goes_on_in_the_other_runtime(nets, learned):
    torch_net, onnx_net, images = nets
    stream = Regrouped(torch_net, learned.policy, batch_size=8)
    parts = [stream.feed(images[:29])]
    stream.go_on_with(onnx_net)
    parts += [stream.feed(images[29:]), stream.flush()]
    whole = EarlyExit(torch_net, learned.policy)(images)
    assert np.array_equal(np.concatenate([p.exit_B for p in parts]), whole.exit_B)
    predictions = np.concatenate([p.prediction_B for p in parts])
    assert np.array_equal(predictions, whole.prediction_B)


def test_a_ranet():
    """Its maps are resized, and fresh weights make large numbers of noise."""
    torch.manual_seed(0)
    net = RANet(
        scales=(1, 2, 2), growth_factors=(2, 2, 1), bottleneck_factors=(2, 1, 1), blocks=1,
        block_step=1, step=2, step_mode="even", channels=4, growth=4, compress=0.25,
        reduction=0.5, stem="cifar", init="he", num_classes=10, image_size=20,
    ).eval()  # fmt: skip
    images = torch.randn(5, 3, 20, 20)
    with torch.inference_mode():
        ours, theirs = net(images), Runtimes(net, CPU, "onnx").net(images)
    assert torch.allclose(ours, theirs, atol=1e-4 * float(ours.abs().max()))


def test_auto_tries_once_it_has_worked_long_enough(learned):
    runtimes = Runtimes(learned.net, CPU, "auto")
    assert runtimes.name == "torch"
    assert not runtimes.worked(runtime.TRIAL_AFTER / 2)
    assert runtimes.worked(runtime.TRIAL_AFTER / 2)
    tried = []
    runtimes.decide(lambda net: lambda: tried.append(net), 60)
    assert {id(net) for net in tried} == {id(net) for net in runtimes.all().values()}
    assert "batches of 60" in runtimes.reason
    assert not runtimes.worked(100)


def test_auto_takes_the_faster_one(learned):
    for slow in ("torch", "onnx"):
        runtimes = Runtimes(learned.net, CPU, "auto")
        all_of_them = runtimes.all()

        def run(net, slow=all_of_them[slow]):
            return lambda: torch.randn(300_000).sort() if net is slow else None

        runtimes.decide(run, 1)
        assert runtimes.name != slow
        assert runtimes.net is all_of_them[runtimes.name]
        assert f"than {slow}" not in runtimes.reason
        assert f"as fast as {slow}" in runtimes.reason


def test_one_runtime_stays_what_it_is(learned):
    for kind in ("torch", "onnx"):
        runtimes = Runtimes(learned.net, CPU, kind)
        assert not runtimes.worked(100)
        assert runtimes.name == kind
        assert list(runtimes.all()) == [kind]


def test_without_onnxruntime(learned, monkeypatch):
    monkeypatch.setattr(runtime, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"onnx needs onnx, onnxruntime: pip install 'hdkd"):
        Runtimes(learned.net, CPU, "onnx")
    runtimes = Runtimes(learned.net, CPU, "auto")
    assert list(runtimes.all()) == ["torch"]
    assert "onnxruntime" in runtimes.reason
    assert not runtimes.worked(100)


def test_not_on_another_device(learned):
    with pytest.raises(UsageError, match="used on the CPU, not on meta"):
        Runtimes(learned.net, torch.device("meta"), "onnx")


@dataclass(eq=False)
class ByBatch(Stage):
    """Its logits depend on how many samples there are, which a traced program cannot know."""

    head_keys = ("image",)

    def __post_init__(self):
        super().__init__()
        self.read = torch.nn.Linear(4, 3)

    def body(self, state):
        return {"image": state["image"] * len(state["image"].tolist())}

    def head(self, state):
        return self.read(state["image"])


def test_a_program_that_computes_something_else_is_not_used():
    net = MultiExitNet(
        [ByBatch(), ByBatch()], name="by-batch", num_classes=3, input_shape=(4,), arguments={}
    ).eval()
    with pytest.raises(ExportError, match=r"stage 1 cannot run in onnxruntime: .*differs by"):
        Runtimes(net, CPU, "onnx")
    runtimes = Runtimes(net, CPU, "auto")
    runtimes.decide(lambda net: lambda: net.num_exits, 1)
    assert runtimes.name == "torch"
    assert "differs by" in runtimes.reason


def test_a_state_that_was_narrowed_is_what_the_next_program_takes(nets):
    """A program's state remembers its arrays; one of some samples must not."""
    torch_net, onnx_net, images = nets
    whole = onnx_net.stages[0].body({"image": images})
    some = narrow(whole, torch.tensor([3, 1]))
    wanted = torch_net.stages[0].body({"image": images[[3, 1]]})
    with torch.inference_mode():
        _, logits_BC = onnx_net.stages[1].both(some)
        _, wanted_BC = torch_net.stages[1].both(wanted)
    assert torch.allclose(logits_BC, wanted_BC, atol=1e-4)
