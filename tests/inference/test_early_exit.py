"""Early exit against the simulated rule on full scores. K exits, N samples, C classes."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hdkd_cli.errors import PolicyError, ScoresError
from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.evaluation.policy import Combination, ExitPolicy, FittedOn, OperatingPoint
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.simulate import simulate, threshold_array
from hdkd_cli.evaluation.table import tabulate
from hdkd_cli.inference.early_exit import EarlyExit
from hdkd_cli.inference.fold import folded
from hdkd_cli.inference.stream import Regrouped
from hdkd_cli.models.contract import MultiExitNet, Stage

K, N, C, WIDTH = 4, 60, 5, 6
MACS = (10, 20, 40, 80)


class SeenStage(Stage):
    """Remembers how many samples its body and its head saw."""

    head_keys = ("x",)

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.read = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, C)
        self.bodies: list[int] = []
        self.heads: list[int] = []

    def body(self, state):
        x = state.get("x", state.get("image"))
        self.bodies.append(len(x))
        return {"x": torch.tanh(2 * self.mix(x)), "side": x}

    def head(self, state):
        self.heads.append(len(state["x"]))
        return 3 * self.read(state["x"])


def make_net() -> MultiExitNet:
    torch.manual_seed(0)
    stages = [SeenStage() for _ in range(K)]
    return MultiExitNet(
        stages, name="seen", num_classes=C, input_shape=(WIDTH,), arguments={}
    ).double()


NET = make_net()
IMAGES = torch.randn(N, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
FREE = Combination(
    kind="mean",
    weights=((1, 0, 0, 0), (0.3, 0.7, 0, 0), (0.6, 0, 0.4, 0), (0, 0.5, 0.1, 0.4)),
)
SPREAD = [0.6, 0.75, 0.3]  # some leave at every exit
COMBINATIONS = [*(fixed_combination(k, MACS) for k in ("single", "mean", "cost-weighted")), FREE]


def make_policy(thresholds, combination=FREE, kind="max-prob") -> ExitPolicy:
    point = OperatingPoint(
        target_macs=None, thresholds=tuple(thresholds), val_macs=1, val_top1_pct=50
    )
    return ExitPolicy(
        kind="geometric",
        confidence=kind,
        combination=combination,
        temperatures=(1.0, 0.5, 2.0, 1.5),
        points=(point,),
        fitted_on=FittedOn(checkpoint_sha256=None, split=None, samples=1),
    )


def simulated(policy: ExitPolicy):
    """exit_N, prediction_N, and the distance of each sample from a decision the other way."""
    with torch.no_grad():
        logits_KNC = NET.eval()(IMAGES).float().numpy()
    scores = Scores(logits_KNC, np.zeros(N, np.int64), MACS)
    table = tabulate(scores, policy.combination, policy.temperatures, policy.confidence)
    thresholds_PK = threshold_array(policy.points)
    result = simulate(table, thresholds_PK)
    gaps = np.abs(table.confidence_KN[:-1] - thresholds_PK[0][:, None]).min(axis=0)
    return result.exit_PN[0], result.prediction_PN[0], gaps, table.confidence_KN


def check(exited, policy) -> None:
    exit_N, prediction_N, gaps, confidence_KN = simulated(policy)
    sure = gaps > 1e-5
    assert (exited.exit_B == exit_N)[sure].all()
    assert (exited.prediction_B == prediction_N)[sure].all()
    expected = confidence_KN[exit_N, np.arange(N)]
    assert exited.confidence_B[sure] == pytest.approx(expected[sure], abs=1e-5)


def forget() -> None:
    for stage in NET.stages:
        stage.bodies.clear()
        stage.heads.clear()


def joined(parts):
    return type(parts[0])(
        np.concatenate([p.prediction_B for p in parts]),
        np.concatenate([p.exit_B for p in parts]),
        np.concatenate([p.confidence_B for p in parts]),
    )


thresholds = st.lists(st.none() | st.floats(0, 1), min_size=K - 1, max_size=K - 1)
kinds = st.sampled_from(["max-prob", "entropy", "margin"])


@given(thresholds, st.sampled_from(COMBINATIONS), kinds, st.sampled_from([1, 7, N]))
def test_same_answers_as_simulation(thresholds, combination, kind, batch):
    policy = make_policy(thresholds, combination, kind)
    early = EarlyExit(NET, policy)
    check(joined([early(images) for images in IMAGES.split(batch)]), policy)


@given(thresholds, st.sampled_from(COMBINATIONS), st.integers(1, 70), st.integers(1, 40))
def test_regrouped_gives_the_same_in_order(thresholds, combination, batch, fed):
    policy = make_policy(thresholds, combination)
    stream = Regrouped(NET, policy, batch_size=batch)
    parts = [stream.feed(images) for images in IMAGES.split(fed)]
    check(joined([*parts, stream.flush()]), policy)
    assert len(stream.flush().exit_B) == 0


def test_stages_see_those_who_are_left():
    policy = make_policy(SPREAD, COMBINATIONS[1])
    exit_N = simulated(policy)[0]
    assert len(set(exit_N)) == K
    forget()
    EarlyExit(NET, policy)(IMAGES)
    left = [[int((exit_N >= k).sum())] for k in range(K)]
    assert [stage.bodies for stage in NET.stages] == left
    assert [stage.heads for stage in NET.stages] == left


def test_narrowed_states_let_memory_go():
    policy = make_policy(SPREAD, COMBINATIONS[0])
    walk = EarlyExit(NET, policy)._walk
    group = walk.begin(IMAGES, np.arange(N))
    held = []
    with torch.inference_mode():
        for k in range(K - 1):
            _, group = walk.advance(k, group)
            states = sum(t.untyped_storage().nbytes() for t in group.state.values())
            held.append(states + sum(len(logits) for logits in group.logits.values()))
    assert all(later < earlier for earlier, later in pairwise(held))


@pytest.mark.parametrize(
    ("combination", "heads"),
    [(COMBINATIONS[0], [False, True, False, True]), (FREE, [True, True, True, True])],
)
def test_unused_heads_do_not_run(combination, heads):
    policy = make_policy([None, 1.0, None], combination)
    forget()
    EarlyExit(NET, policy)(IMAGES)
    assert [bool(stage.heads) for stage in NET.stages] == heads
    assert all(stage.bodies for stage in NET.stages)


def test_all_leave_or_all_stay():
    for threshold, stages in ((0.0, 1), (None, K)):
        forget()
        exited = EarlyExit(NET, make_policy([threshold] * (K - 1)))(IMAGES)
        assert (exited.exit_B == stages - 1).all()
        assert [len(stage.bodies) for stage in NET.stages] == [1] * stages + [0] * (K - stages)


def test_full_batches_only_until_the_flush():
    policy = make_policy(SPREAD)
    forget()
    stream = Regrouped(NET, policy, batch_size=8)
    for images in IMAGES[:56].split(5):
        stream.feed(images)
    assert {n for stage in NET.stages for n in stage.bodies} == {8}
    stream.flush()
    assert sum(NET.stages[0].bodies) == 56


@pytest.mark.parametrize("regrouped", [False, True])
def test_nan_is_an_error(regrouped):
    net = make_net()
    net.stages[1].read.bias.data[0] = float("nan")
    policy = make_policy([0.9, 0.5, 0.5], COMBINATIONS[0])
    run = Regrouped(net, policy, batch_size=N).feed if regrouped else EarlyExit(net, policy)
    with pytest.raises(ScoresError, match=r"exit 2.*NaN"):
        run(IMAGES)


def test_another_number_of_exits_is_refused():
    net = MultiExitNet(
        [SeenStage()], name="seen", num_classes=C, input_shape=(WIDTH,), arguments={}
    )
    with pytest.raises(PolicyError, match="4 exits"):
        EarlyExit(net, make_policy([0.5] * 3))


def test_folding_changes_nothing_but_time():
    from hdkd_cli.models.msdnet import MSDNet

    torch.manual_seed(0)
    net = MSDNet(
        exits=3, base=2, step=1, step_mode="even", channels=4, growth=4, growth_factors=(1, 2, 2),
        bottleneck_factors=(1, 2, 2), prune="max", reduction=0.5, stem="cifar", init="torch",
        num_classes=4, image_size=20,
    ).double()  # fmt: skip
    images = torch.randn(16, 3, 20, 20, dtype=torch.float64)
    net(images)  # running statistics that are not 0 and 1
    net.eval()
    with torch.no_grad():
        assert torch.allclose(folded(net)(images), net(images), rtol=1e-9, atol=1e-9)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded(net).modules())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_on_cuda():
    policy = make_policy(SPREAD)
    net = make_net().cuda()
    exited = EarlyExit(net, policy)(IMAGES.cuda())
    check(exited, policy)
