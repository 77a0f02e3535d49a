"""A loss that is harmful by construction: what learned weights do with it, for several seeds.

    python benchmarks/harmful_term.py [--seeds 5]


Three exits learn to tell four overlapping clouds apart, with images enough that nothing is learned
by heart. One more loss does harm: an exit is given other images' labels, or is taught by a teacher
that knows nothing. What to expect is known without any formula of the method: without that loss
everything is better. Writes results/harmful_term.json and, with matplotlib, docs/harmful-term.png.
tests/method/test_harmful_term.py holds it. K exits, T terms, S steps.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from harness import options, write_record
from torch import Tensor, nn

from hdkd_cli.method import BalancedValidation, HarmonizedWeights, Harmonizer, Terms
from hdkd_cli.method.terms import Term, TermGroup, cross_entropies

K, CLASSES, FEATURES, STEPS = 3, 4, 8, 300


class OtherLabels(TermGroup):
    """The first exit is given the labels of other images."""

    terms = (Term("noise[1]", "noise", 1),)

    def __call__(self, logits_KBC: Tensor, labels_B: Tensor) -> Tensor:
        return cross_entropies(logits_KBC[:1], labels_B.roll(1))


class RandomTeacher(TermGroup):
    """The second exit is taught by probabilities that have nothing to do with the image."""

    terms = (Term("noise[2]", "noise", 2),)

    def __call__(self, logits_KBC: Tensor, labels_B: Tensor) -> Tensor:
        drawn = torch.Generator().manual_seed(int(labels_B[0]))
        teacher_BC = torch.randn(logits_KBC.shape[1:], generator=drawn).mul(2).softmax(1)
        return -(teacher_BC * logits_KBC[1].log_softmax(1)).sum(1).mean()[None]


class ThreeExits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = [FEATURES, 32, 32, 32]
        self.bodies = nn.ModuleList(
            nn.Sequential(nn.Linear(i, o), nn.ReLU()) for i, o in itertools.pairwise(widths)
        )
        self.heads = nn.ModuleList(nn.Linear(32, CLASSES) for _ in range(K))

    def forward(self, inputs_BF: Tensor) -> Tensor:
        logits = []
        for body, head in zip(self.bodies, self.heads, strict=True):
            inputs_BF = body(inputs_BF)
            logits.append(head(inputs_BF))
        return torch.stack(logits)


def clouds(seed: int) -> tuple[tuple[Tensor, Tensor], ...]:
    """Training, validation and test samples."""
    generator = torch.Generator().manual_seed(seed)
    centres_CF = 1.2 * torch.randn(CLASSES, FEATURES, generator=generator)
    drawn = []
    for count in (20_000, 2_000, 4_000):
        labels = torch.randint(CLASSES, (count,), generator=generator)
        noise = 1.5 * torch.randn(count, FEATURES, generator=generator)
        drawn.append((centres_CF[labels] + noise, labels))
    return tuple(drawn)


def trained(seed: int, harm: TermGroup, learned: bool) -> tuple[Tensor, float]:
    """The weights after every step (S, T), and the test loss, mean over exits."""
    torch.manual_seed(seed)
    (inputs, labels), (val_inputs, val_labels), test = clouds(seed)
    net, terms = ThreeExits(), Terms(K, "later", 3.0, [harm])
    weights = HarmonizedWeights(
        terms, init="balanced", parametrisation="softmax", distillation_sum=None,
        dbt_share=0.5, learned=learned, seed=0,
    )  # fmt: skip
    harmonizer = None
    if learned:
        harmonizer = Harmonizer(
            weights, terms, BalancedValidation(K, 0.5, 0.9),
            lr=0.05, pull=0.0, interval=5, nesterov_momentum=0.0,
        )  # fmt: skip
    weights_ST = []
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    for step in range(STEPS):
        chosen = torch.randint(len(labels), (64,))
        held_out = torch.randint(len(val_labels), (256,))
        batch = inputs[chosen], labels[chosen]
        due = harmonizer if harmonizer is not None and harmonizer.due(step) else None
        if due is not None:
            due.before_step(net)
        optimizer.zero_grad()
        (weights() * terms(net(batch[0]), batch[1])).sum().backward()
        optimizer.step()
        if due is not None:
            due.after_step(net, [batch], (val_inputs[held_out], val_labels[held_out]))
        weights_ST.append(weights())
    with torch.no_grad():
        return torch.stack(weights_ST), float(cross_entropies(net(test[0]), test[1]).mean())


HARMS: dict[str, TermGroup] = {"other labels": OtherLabels(), "random teacher": RandomTeacher()}


def main() -> None:
    """Train with learned and with fixed weights, print and write what came of it."""
    arguments = options(__doc__, seeds=5)
    rows: list[dict[str, Any]] = []
    curves: dict[str, list[Tensor]] = {}
    for name, harm in HARMS.items():
        for seed in range(arguments.seeds):
            weights_ST, learned_loss = trained(seed, harm, learned=True)
            _, fixed_loss = trained(seed, harm, learned=False)
            curves.setdefault(name, []).append(weights_ST)
            rows.append(
                {
                    "harm": name,
                    "seed": seed,
                    "weight_at_the_end": float(weights_ST[-1, -1]),
                    "test_loss_learned": learned_loss,
                    "test_loss_fixed": fixed_loss,
                }
            )
            print(*rows[-1].values(), sep="  ")
    write_record("harmful_term", "a loss that is harmful by construction", rows=rows)
    with suppress(ImportError):
        draw(curves, Path(__file__).parents[1] / "docs" / "harmful-term.png")


def draw(curves: dict[str, list[Tensor]], path: Path) -> None:
    """The weight of the harmful loss over time, and the mean of all others; a line per seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for panel, (name, seeds) in zip(
        figure.subplots(1, 2, sharey=True), curves.items(), strict=True
    ):
        for place, weights_ST in enumerate(seeds):
            labels = ("harmful loss", "mean of all others") if place == 0 else (None, None)
            panel.plot(weights_ST[:, -1], color="C3", linewidth=1, label=labels[0])
            panel.plot(weights_ST[:, :-1].mean(1), color="C0", linewidth=1, label=labels[1])
        panel.set(title=name, xlabel="step", ylim=(0, None))
    figure.axes[0].set_ylabel("weight")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
