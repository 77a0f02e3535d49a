"""Whether a network of your own keeps the contract that everything else rests on.

    report = check_network(my_net(exits=5, num_classes=10, image_size=32))

From the command line: ``hdkd doctor --network package.module:factory``. K exits, B batch.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call

from hdkd_cli.errors import NetworkError
from hdkd_cli.evaluation.combination import fixed_combination
from hdkd_cli.evaluation.policy import ExitPolicy, FittedOn, OperatingPoint
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.simulate import choose_exits, threshold_array
from hdkd_cli.evaluation.table import tabulate
from hdkd_cli.inference.early_exit import EarlyExit
from hdkd_cli.inference.export import export
from hdkd_cli.method.hypergradient import forward_mode
from hdkd_cli.method.terms import cross_entropies
from hdkd_cli.models.conforming import TOLERANCE, forward_problem, gap, noise, run_stages
from hdkd_cli.models.contract import MultiExitNet, State, narrow
from hdkd_cli.models.cost import measure_costs
from hdkd_cli.settings.data import DataSettings

BATCH = 6
CLOSE = 1e-6
"""Largest relative difference in float64 that counts as rounding."""


@dataclass(frozen=True)
class NetworkCheck:
    """One property that a network has to have.

    Attributes:
        name: What was looked at.
        problem: What is wrong; None: nothing.
    """

    name: str
    problem: str | None


@dataclass(frozen=True)
class NetworkReport:
    """What `check_network` found.

    Attributes:
        network: What the architecture is called.
        num_exits: K.
        checks: All that was looked at, in order.
    """

    network: str
    num_exits: int
    checks: tuple[NetworkCheck, ...]

    @property
    def failed(self) -> tuple[NetworkCheck, ...]:
        """Those with a problem."""
        return tuple(check for check in self.checks if check.problem is not None)


def check_network(net: MultiExitNet) -> NetworkReport:
    """Look at everything that training, early exit, costs and export expect of a network.

    It runs on noise on the CPU, in a copy: ``net`` stays as it is. Derivatives are compared in
    float64. An export is written to a temporary folder and run.

    Raises:
        NetworkError: something is wrong; the message lists all of it.
    """
    report = inspect_network(net)
    if report.failed:
        lines = "".join(f"\n  {check.name}: {check.problem}" for check in report.failed)
        raise NetworkError(f"{report.network}: does not keep the contract of a network:{lines}")
    return report


def inspect_network(net: MultiExitNet) -> NetworkReport:
    """As `check_network`, with what is wrong in the report."""
    single = copy.deepcopy(net).to("cpu", torch.float32).eval()
    exact = copy.deepcopy(single).double()
    looks: tuple[tuple[str, Callable[[MultiExitNet], str | None], MultiExitNet], ...] = (
        ("forward is the stages", forward_problem, single),
        ("a state holds named tensors, batch first", _state_problem, exact),
        ("stages leave their input alone", _writing_problem, exact),
        ("no two stages share a parameter", _sharing_problem, single),
        ("any subset of samples narrows", _narrowing_problem, exact),
        ("early exit equals the simulation", _early_exit_problem, exact),
        ("gradient equilibrium leaves the logits", _equilibrium_problem, exact),
        ("forward mode equals reverse mode", _derivative_problem, exact),
        ("costs add up and grow", _cost_problem, single),
        ("its architecture is described in JSON", _architecture_problem, single),
        ("an export computes the same", _export_problem, single),
    )
    checks = []
    for name, look, subject in looks:
        try:
            problem = look(subject)
        except Exception as stumbled:  # whatever a network stumbles over is the finding
            first = (str(stumbled).strip() or "no message").splitlines()[0]
            problem = f"{type(stumbled).__name__}: {first}"
        checks.append(NetworkCheck(name, problem))
    return NetworkReport(net.name, net.num_exits, tuple(checks))


def _walk(net: MultiExitNet, images: Tensor) -> Iterator[tuple[int, State, State]]:
    """The stages one after another: (number from 1, state before, state after)."""
    before = net.start(images)
    for number, stage in enumerate(net.stages, 1):
        after = stage.body(before)
        yield number, before, after
        before = after


@torch.no_grad()
def _state_problem(net: MultiExitNet) -> str | None:
    for number, _, after in _walk(net, noise(net, BATCH)):
        for name, tensor in after.items():
            if not isinstance(tensor, Tensor) or tensor.dim() == 0 or len(tensor) != BATCH:
                return f"stage {number}: its state's {name!r} is no tensor with the batch first"
        if missing := [key for key in net.stages[number - 1].head_keys if key not in after]:
            return f"stage {number}: head_keys names {missing[0]!r}, which its state lacks"
    return None


@torch.no_grad()
def _writing_problem(net: MultiExitNet) -> str | None:
    before = net.start(noise(net, BATCH))
    for number, stage in enumerate(net.stages, 1):
        for part, run in (("body", stage.body), ("head", stage.head)):
            kept = {name: tensor.clone() for name, tensor in before.items()}
            result = run(before)
            if before.keys() != kept.keys():
                return f"stage {number}: {part} adds to the state it is given, or takes away"
            for name, tensor in before.items():
                if not torch.equal(tensor, kept[name]):
                    return f"stage {number}: {part} writes into {name!r} of the state it is given"
            if part == "body":
                before = result  # type: ignore[assignment]
    return None


def _sharing_problem(net: MultiExitNet) -> str | None:
    owner: dict[torch.nn.Parameter, tuple[int, str]] = {}
    for number, stage in enumerate(net.stages, 1):
        for name, parameter in stage.named_parameters():
            first, known_as = owner.setdefault(parameter, (number, name))
            if first != number:
                return f"stage {number}: its {name} is the {known_as} of stage {first} too"
    return None


@torch.no_grad()
def _narrowing_problem(net: MultiExitNet) -> str | None:
    images = noise(net, BATCH)
    whole_KBC = run_stages(net, images)
    for chosen in ([4, 1], [2], [0, 1, 2, 3, 4, 5]):
        index_B = torch.tensor(chosen)
        for number, before, _ in _walk(net, images):
            state = narrow(before, index_B)
            for k in range(number - 1, net.num_exits):
                state = net.stages[k].body(state)
                difference = gap(net.stages[k].head(state), whole_KBC[k, index_B])
                if not difference <= CLOSE:
                    return (
                        f"narrowed to {len(chosen)} of {BATCH} samples before stage {number}, exit "
                        f"{k + 1} says something else (by {difference:.2g} of the largest logit)"
                    )
    return None


def _policy(thresholds: tuple[float, ...]) -> ExitPolicy:
    """Leave where the largest probability reaches a threshold."""
    point = OperatingPoint(target_macs=None, thresholds=thresholds, val_macs=1, val_top1_pct=0)
    exits = len(thresholds) + 1
    return ExitPolicy(
        kind="geometric",
        confidence="max-prob",
        combination=fixed_combination("single", range(1, exits + 1)),
        temperatures=(1.0,) * exits,
        points=(point,),
        fitted_on=FittedOn(checkpoint_sha256=None, split=None, samples=1),
    )


def _early_exit_problem(net: MultiExitNet) -> str | None:
    images = noise(net, 4 * BATCH)
    with torch.no_grad():
        logits_KNC = net(images).float().numpy()
    macs_K = tuple(range(1, net.num_exits + 1))
    scores = Scores(logits_KNC, np.zeros(len(images), np.int64), macs_K)
    read = _policy((0.5,) * (net.num_exits - 1))
    table = tabulate(scores, read.combination, read.temperatures, read.confidence)
    # halfway between the two samples in the middle, so that half of those that come leave
    middle_KN = np.sort(table.confidence_KN, axis=1)[:-1]
    half = len(images) // 2
    thresholds = tuple(middle_KN[:, half - 1 : half + 1].mean(1).tolist())
    policy = _policy(thresholds)
    exited = EarlyExit(net, policy)(images)
    threshold_PK = threshold_array(policy.points)
    simulated_N = choose_exits(table.confidence_KN, threshold_PK)[0]
    margins = abs(table.confidence_KN[:-1] - threshold_PK[0][:, None]).min(axis=0, initial=1)
    sure_N = margins > TOLERANCE**2  # rounding does not decide
    if not np.array_equal(exited.exit_B[sure_N], simulated_N[sure_N]):
        return "images leave elsewhere than their logits say"
    told_N = logits_KNC[simulated_N, np.arange(len(images))].argmax(-1)
    if not np.array_equal(exited.prediction_B[sure_N], told_N[sure_N]):
        return "images that leave early get another class than their exit's logits say"
    return None


@torch.no_grad()
def _equilibrium_problem(net: MultiExitNet) -> str | None:
    images, mode = noise(net, BATCH), net.gradient_equilibrium
    wanted_KBC = run_stages(net, images)
    try:
        for net.gradient_equilibrium in ("state", "head"):
            if not gap(net(images), wanted_KBC) <= CLOSE:
                return f"with gradient_equilibrium {net.gradient_equilibrium!r} they differ"
    finally:
        net.gradient_equilibrium = mode
    return None


def _derivative_problem(net: MultiExitNet) -> str | None:
    """Both modes' derivatives of each exit's cross-entropy along one direction, in training."""
    net = copy.deepcopy(net).train()
    images = noise(net, BATCH)
    labels_B = torch.arange(BATCH) % net.num_classes
    parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
    generator = torch.Generator().manual_seed(1)
    direction = {
        name: torch.randn(p.shape, generator=generator).to(p) for name, p in parameters.items()
    }

    def losses(point: dict[str, Tensor]) -> Tensor:
        buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
        torch.manual_seed(2)  # dropout drops the same
        return cross_entropies(functional_call(net, {**buffers, **point}, (images,)), labels_B)

    with net.true_gradients(), torch.random.fork_rng(devices=[]):
        ce_K = losses(dict(parameters))
        reverse_K, scale_K = [], []
        for ce in ce_K:
            gradients = torch.autograd.grad(
                ce, list(parameters.values()), retain_graph=True, allow_unused=True
            )
            products = [
                (gradient * direction[name]).flatten()
                for name, gradient in zip(parameters, gradients, strict=True)
                if gradient is not None
            ]
            reverse_K.append(float(torch.cat(products).sum()))
            scale_K.append(float(torch.cat(products).abs().sum()))
        with forward_mode():
            point = {
                name: forward_ad.make_dual(p.detach(), direction[name])  # type: ignore[no-untyped-call]
                for name, p in parameters.items()
            }
            tangent_K = forward_ad.unpack_dual(losses(point)).tangent  # type: ignore[no-untyped-call]
    if tangent_K is None:
        return "forward mode does not reach the logits"
    for k, forward in enumerate(tangent_K.tolist()):
        if not abs(forward - reverse_K[k]) <= CLOSE * max(scale_K[k], 1e-12):
            return f"exit {k + 1}: {forward:.6g} in forward, {reverse_K[k]:.6g} in reverse mode"
    return None


def _cost_problem(net: MultiExitNet) -> str | None:
    costs = measure_costs(net)
    for name, values_K in (("macs", costs.macs_K), ("params", costs.params_K)):
        steps = zip((0, *values_K), values_K, strict=False)
        for number, (before, here) in enumerate(steps, 1):
            if here < before or (name == "macs" and here == before):
                return f"{name} do not grow at exit {number}: {before:,} before, {here:,} there"
    owned, there = costs.params_K[-1], sum(p.numel() for p in net.parameters())
    if owned != there:
        return (
            f"{there - owned:,} of {there:,} parameters belong to no exit: they are outside the "
            "stages, and eager_ownership does not name them"
        )
    return None


def _architecture_problem(net: MultiExitNet) -> str | None:
    description = json.loads(net.architecture())
    return None if isinstance(description, dict) else "it is no JSON object"


def _export_problem(net: MultiExitNet) -> str | None:
    """`export` itself compares what it wrote with the stages."""
    policy = _policy((0.5,) * (net.num_exits - 1))
    classes = [str(c) for c in range(net.num_classes)]
    data = DataSettings(image_size=net.input_shape[-1])
    with tempfile.TemporaryDirectory() as folder:
        export(
            net, policy, classes, data, to="pt2", folder=Path(folder) / "net", checkpoint_sha256=""
        )
    return None
