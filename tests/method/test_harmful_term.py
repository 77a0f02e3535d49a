"""A loss that is harmful by construction: learned weights have to turn it down, for every seed.

Three exits learn to tell four overlapping clouds apart, with images enough that nothing is learned
by heart. One more loss does harm: an exit is given other images' labels, or is taught by a teacher
that knows nothing. What to expect is known without any formula of the method: without that loss
everything is better. K exits.
"""

from __future__ import annotations

import itertools

import pytest
import torch
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
    """The weights at the end, and the test loss, mean over exits."""
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
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    for step in range(STEPS):
        chosen = torch.randint(len(labels), (64,))
        held_out = torch.randint(len(val_labels), (256,))
        batch = inputs[chosen], labels[chosen]
        due = harmonizer is not None and harmonizer.due(step)
        if due:
            harmonizer.before_step(net)
        optimizer.zero_grad()
        (weights() * terms(net(batch[0]), batch[1])).sum().backward()
        optimizer.step()
        if due:
            harmonizer.after_step(net, [batch], (val_inputs[held_out], val_labels[held_out]))
    with torch.no_grad():
        return weights(), float(cross_entropies(net(test[0]), test[1]).mean())


@pytest.mark.parametrize("harm", [OtherLabels(), RandomTeacher()], ids=["labels", "teacher"])
def test_a_harmful_loss_is_turned_down_whatever_the_seed_and_that_pays(harm):
    """Three seeds: its weight falls from 1 to below 0.3, and the network is better than with the
    weights that training starts from."""
    gains = []
    for seed in range(3):
        learned_T, learned_loss = trained(seed, harm, learned=True)
        assert float(learned_T[-1]) < 0.3
        assert float(learned_T[:K].min()) > float(learned_T[-1])  # no exit's labels fall so far
        gains.append(trained(seed, harm, learned=False)[1] - learned_loss)
    assert sum(gains) / len(gains) > 0
    assert sum(gain > 0 for gain in gains) >= 2
