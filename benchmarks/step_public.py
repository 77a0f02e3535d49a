"""A training step in every arithmetic, beside the loop of MSDNet's public PyTorch code.

    python benchmarks/step_public.py [--threads 1 --trials 6 --net cifar100-msdnet7 ...]

``public`` is that code's network and loop written anew from their description: every scale of
every layer, layer by layer; cross-entropies of all exits added up, the framework's SGD in float32
and NCHW order, and for the log top-1 and top-5 of every exit by ``.item()`` in each step. The
others are what ``hdkd train`` runs with fixed and with learned weights, without the updates
(``overhead.py`` has those). All step on the same 64 random images, in turn in one process, and
nobody reads images.

Writes benchmarks/results/step_public.json.

K exits, B batch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from claims import finish
from fixtures import NETS, fresh_state, settings_for
from harness import in_turn, options, ratios, spread

from hdkd_cli.data import Batch
from hdkd_cli.devices import has_bf16_units, keep_freed_memory
from hdkd_cli.models.blocks import ConvBnRelu
from hdkd_cli.models.fused import available
from hdkd_cli.settings.schema import Settings
from hdkd_cli.training.step import new_totals, train_step

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from foreign_nets import ForeignMSDNet

TARGETS = {"fp32": 1.3, "bf16": 2.0}
"""What the fastest form of each precision should gain over the public loop."""
BATCH = 64


class Arm(NamedTuple):
    """What a step of ``hdkd`` computes in, and with which method."""

    method: str
    precision: str = "fp32"
    channels_last: bool = False
    operator: bool = False

    def __str__(self) -> str:
        """In words."""
        order = "NHWC" if self.channels_last else "NCHW"
        operator = ", BatchNorm and ReLU one operator" if self.operator else ""
        return f"{self.method}, {self.precision} {order}{operator}"


def arms() -> list[Arm]:
    """What this machine can do: learned weights in all forms, fixed ones in the first and last."""
    precisions = ["fp32", "bf16"] if has_bf16_units() else ["fp32"]  # emulated, it says nothing
    forms = [(False, False), (True, False), *([(True, True)] if available() else [])]
    all_forms = [Arm("hdkd", precision, *form) for precision in precisions for form in forms]
    return [Arm("joint"), *all_forms, Arm("joint", *all_forms[-1][1:])]


def public_step(settings: Settings, batch: Batch) -> Callable[[], object]:
    """A step of the public loop."""
    names = ("base", "step", "step_mode", "channels", "growth", "growth_factors", "stem")
    more = ("exits", "bottleneck_factors", "prune", "reduction")
    given = {name: getattr(settings.model, name) for name in (*names, *more)}
    net = ForeignMSDNet(num_classes=100, **given).train()
    s = settings.optimizer
    optimizer = torch.optim.SGD(
        net.parameters(), lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay
    )
    log = []

    def step() -> None:
        logits_KBC = net(batch.images)
        loss = sum(F.cross_entropy(logits_BC, batch.labels) for logits_BC in logits_KBC)
        log.append(loss.item())
        for logits_BC in logits_KBC:
            hits = logits_BC.topk(5)[1].eq(batch.labels[:, None])
            log.append((hits[:, :1].sum().item(), hits.sum().item()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def hdkd_step(arm: Arm, net: str) -> Callable[[], object]:
    """A step of ``hdkd`` as ``arm`` says."""
    settings = settings_for(
        NETS[net][0], BATCH, arm.method, precision=arm.precision, channels_last=arm.channels_last
    )
    state, batch = fresh_state(settings, 100)
    for module in state.net.modules():
        if isinstance(module, ConvBnRelu):
            module.fused = arm.operator
    totals = new_totals(state)
    return lambda: train_step(state, [batch], totals)


def measure(net: str, trials: int) -> list[dict[str, object]]:
    """A row for each arm."""
    settings = settings_for(NETS[net][0], BATCH, "joint")
    _, batch = fresh_state(settings, 100)
    steps = {"public": public_step(settings, batch)}
    steps |= {str(arm): hdkd_step(arm, net) for arm in arms()}
    seconds = in_turn(steps, trials=trials)
    fastest = {arm.precision: arm for arm in arms() if arm.method == "hdkd"}
    return [
        {
            "net": net,
            "arm": str(arm),
            "speedup": ratios(seconds["public"], seconds[str(arm)]),
            "target": TARGETS[arm.precision] if arm in fastest.values() else None,
            "images_per_s": spread([BATCH / t for t in seconds[str(arm)]]),
            "public_images_per_s": spread([BATCH / t for t in seconds["public"]]),
        }
        for arm in arms()
    ]


def main() -> None:
    """Measure, write the record, print what it says."""
    given = options(__doc__, threads=1, trials=6, net=NETS)
    keep_freed_memory()
    finish(
        "step_public",
        "images/s of a training step: the public loop and hdkd in turn",
        trials=given.trials,
        batch=BATCH,
        rows=[row for net in given.net for row in measure(net, given.trials)],
    )


if __name__ == "__main__":
    main()
