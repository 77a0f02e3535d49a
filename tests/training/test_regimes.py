"""What is trained when, by what optimiser; resumed anywhere with the same bits; AdamW's
hypergradient against unrolled autograd."""

import pytest
import torch
from small_runs import changed, small_settings
from test_loop import StopAt, assert_same_bits, begin, go
from torch.func import functional_call

from hdkd_cli.data import open_data
from hdkd_cli.errors import InterruptedRun, SettingsError
from hdkd_cli.method.harmonizer import Harmonizer
from hdkd_cli.method.terms import Terms, cross_entropies
from hdkd_cli.method.validation import BalancedValidation
from hdkd_cli.method.weights import HarmonizedWeights
from hdkd_cli.models import MultiExitNet, Stage
from hdkd_cli.runs.metrics import read_metrics
from hdkd_cli.settings.layers import resolve
from hdkd_cli.settings.schema import OptimizerSettings, TrainingSettings
from hdkd_cli.training.building import build_state
from hdkd_cli.training.optimizer import build_optimizer, preconditioner
from hdkd_cli.training.regimes import Regime
from hdkd_cli.training.schedule import Schedule

CPU = torch.device("cpu")
ADAMW = OptimizerSettings(name="adamw", lr=0.003, heads_lr=0.01)


def regime(name: str, **values: object):
    return changed(small_settings(), "training", regime=name, log_every=1, **values)


def moved(runs_dir, settings) -> set[str]:
    """The parts of the network whose parameters a run changed; also the backbone's statistics."""
    before = build_state(settings, open_data(settings.data), CPU).net.state_dict()
    run = begin(runs_dir, settings)
    go(run, settings)
    parts = set()
    for name, tensor in run.checkpoint().tensors("model")[0].items():
        stage, part = name.split(".")[1:3]
        head = part == "classifier"
        if not torch.equal(tensor, before[name]) and not (head and _is_statistic(name)):
            parts.add(f"head {int(stage) + 1}" if head else "backbone")
    return parts


def _is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def test_joint_trains_everything(runs_dir):
    assert moved(runs_dir, small_settings()) == {"backbone", "head 1", "head 2", "head 3"}


def test_disjoint_trains_the_heads_and_leaves_the_backbone_as_it_is(runs_dir):
    assert moved(runs_dir, regime("disjoint")) == {"head 1", "head 2", "head 3"}


def test_mixed_begins_with_the_backbone_and_its_last_exit(runs_dir):
    assert moved(runs_dir, regime("mixed", max_steps=6)) == {"backbone", "head 3"}  # of 12
    everything = {"backbone", "head 1", "head 2", "head 3"}
    assert moved(runs_dir, regime("mixed", max_steps=7)) == everything


def test_mixed_learns_weights_only_once_all_exits_train(whole_run):
    run = whole_run(regime("mixed"))
    steps = [e["step"] for e in read_metrics(run.metrics) if e["event"] == "weights_updated"]
    assert steps == [8, 10, 12]
    logged = [e for e in read_metrics(run.metrics) if e["event"] == "step"]
    assert logged[-1]["weight_updates_left_out"] == 0


@pytest.mark.parametrize("step", [3, 7])
@pytest.mark.parametrize(
    "settings",
    [
        regime("mixed"),
        regime("disjoint"),
        regime("joint").model_copy(update={"optimizer": ADAMW}),
        regime("mixed").model_copy(update={"optimizer": ADAMW}),
    ],
    ids=["mixed", "disjoint", "adamw", "mixed-adamw"],
)
def test_interrupted_and_resumed_gives_the_same_bits(runs_dir, whole_run, settings, step):
    whole, parts = whole_run(settings), begin(runs_dir, settings)
    with pytest.raises(InterruptedRun):
        go(parts, settings, sink=StopAt(step))
    go(parts, settings, resume=True)
    assert_same_bits(whole, parts)


def test_adamw_is_torchs_own(runs_dir):
    """Weights fixed, two groups with rates of their own."""
    settings = small_settings(optimizer=ADAMW)
    settings = changed(settings, "weights", learned=False)
    state = build_state(settings, open_data(settings.data), CPU)
    rates = {len(g["params"]): g["rate"] for g in state.optimizer.param_groups}
    heads = len(state.net.head_parameters())
    assert rates == {heads: 0.01 / 0.003, len(list(state.net.parameters())) - heads: 1.0}
    assert isinstance(state.optimizer, torch.optim.AdamW)


class Headless(Stage):
    """It does not say what its head is."""

    head_keys = ("image",)

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def body(self, state):
        return {"image": torch.tanh(state["image"])}

    def head(self, state):
        return self.linear(state["image"])


class Tiny(Headless):
    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Linear(4, 4)

    def body(self, state):
        return {"image": torch.tanh(self.mix(state["image"]))}

    def head_modules(self):
        return (self.linear,)


def tiny(kind: type[Stage] = Tiny) -> MultiExitNet:
    torch.manual_seed(0)
    return MultiExitNet(
        [kind(), kind()], name="tiny", num_classes=3, input_shape=(4,), arguments={}
    ).double()


@pytest.mark.parametrize("name", ["disjoint", "mixed"])
def test_a_network_that_does_not_tell_its_heads_is_refused(name):
    with pytest.raises(SettingsError, match=r"training.regime: tiny does not say"):
        Regime(tiny(Headless), TrainingSettings(regime=name), Schedule(1, 10, 10))
    with pytest.raises(SettingsError, match=r"optimizer.heads_lr: tiny does not say"):
        build_optimizer(tiny(Headless), OptimizerSettings(heads_lr=1.0), [])


@pytest.mark.parametrize(
    "settings",
    [
        OptimizerSettings(name="adamw", lr=0.01, weight_decay=0.1),
        OptimizerSettings(name="adamw", lr=0.01, heads_lr=0.05),
        OptimizerSettings(lr=0.1, heads_lr=0.3, weight_decay=0.1),
        OptimizerSettings(lr=0.1, heads_lr=0.3, nesterov=True),
    ],
    ids=["adamw", "adamw-heads", "sgd-heads", "nesterov-heads"],
)
@pytest.mark.parametrize("steps", [1, 4])
def test_the_hypergradient_is_that_of_the_preconditioned_step(settings, steps):
    """(1/η)·∂L_val(θ')/∂γ by autograd through the last step, written out here."""
    net = tiny()
    terms = Terms(2, "later", 3.0)
    weights = HarmonizedWeights(
        terms, init="uniform", parametrisation="exp", distillation_sum=None, dbt_share=0.5,
        learned=True, seed=0,
    ).double()  # fmt: skip
    optimizer = build_optimizer(net, settings, list(net.parameters()))
    validation = BalancedValidation(2, 0.5, 0.9)
    harmonizer = Harmonizer(
        weights, terms, validation, lr=0.01, pull=0.0, interval=1,
        nesterov_momentum=settings.momentum if settings.nesterov else 0.0,
        precondition=preconditioner(net, optimizer, settings),
    )  # fmt: skip
    for group in optimizer.param_groups:
        group["lr"] = group["rate"] * settings.lr
    rates = {p: g["rate"] for g in optimizer.param_groups for p in g["params"]}
    generator = torch.Generator().manual_seed(1)

    def batch():
        images = torch.randn(6, 4, dtype=torch.float64, generator=generator)
        return images, torch.randint(3, (6,), generator=generator)

    for step in range(steps):
        train, val = batch(), batch()
        gamma_T = weights().detach().requires_grad_()
        theta = dict(net.named_parameters())
        start = {n: p.detach().clone().requires_grad_() for n, p in theta.items()}
        buffers = {
            n: {k: v.clone() for k, v in optimizer.state[p].items()} for n, p in theta.items()
        }
        logits_KBC = functional_call(net, start, (train[0],))
        loss = (gamma_T * terms(logits_KBC, train[1])).sum()
        grads = torch.autograd.grad(loss, list(start.values()), create_graph=True)

        harmonizer.before_step(net)
        optimizer.zero_grad()
        for parameter, gradient in zip(theta.values(), grads, strict=True):
            parameter.grad = gradient.detach().clone()
        optimizer.step()
        expected = validation.expected_K.clone()

        ahead = {}
        for (name, parameter), gradient in zip(theta.items(), grads, strict=True):
            lr, kept = rates[parameter] * settings.lr, buffers[name]
            if settings.name == "adamw":
                n, b1, b2 = step + 1, settings.momentum, settings.beta2
                first = b1 * kept["exp_avg"] + (1 - b1) * gradient
                second = b2 * kept["exp_avg_sq"] + (1 - b2) * gradient.detach() ** 2  # constant
                move = first / (1 - b1**n) / ((second / (1 - b2**n)).sqrt() + 1e-8)
                ahead[name] = start[name] * (1 - lr * settings.weight_decay) - lr * move
            else:
                g = gradient + settings.weight_decay * start[name]
                momentum = settings.momentum * kept["momentum_buffer"] + g
                ahead[name] = start[name] - lr * (
                    g + settings.momentum * momentum if settings.nesterov else momentum
                )
            torch.testing.assert_close(parameter.detach(), ahead[name].detach(), rtol=1e-9, atol=0)
        ce_K = cross_entropies(functional_call(net, ahead, (val[0],)), val[1])
        reference = BalancedValidation(2, 0.5, 0.9)
        reference.expected_K.copy_(expected)
        (wanted_T,) = torch.autograd.grad(reference.loss(ce_K), gamma_T)

        update = harmonizer.after_step(net, [train], val)
        torch.testing.assert_close(
            update.hypergradient_T, wanted_T / settings.lr, rtol=1e-6, atol=1e-9
        )


def test_weights_that_would_be_mere_learning_rates_are_refused():
    disjoint = ("training.regime=disjoint", "objective.teachers=none")
    with pytest.raises(SettingsError, match="own head alone"):
        resolve(environment={}, assignments=disjoint)
    resolve(environment={}, assignments=(*disjoint, "weights.learned=false"))
    resolve(environment={}, assignments=("training.regime=disjoint",))


def test_continuations_do_not_judge_a_backbone_of_one_exit():
    mixed = ("training.regime=mixed", "weights.learner=continuations")
    with pytest.raises(SettingsError, match="train one exit alone"):
        resolve(environment={}, assignments=mixed)
