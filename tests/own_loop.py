"""A training loop of one's own with learned loss weights."""

import torch

from hdkd_cli import BalancedValidation, HarmonizedWeights, Harmonizer, MultiExitNet, Terms


def fit(net: MultiExitNet, batches: list, val_batches: list, steps: int) -> torch.Tensor:
    """Train ``net`` on batches of (images, labels); return the weights of the losses."""
    terms = Terms(net.num_exits, "later", temperature=3.0)
    weights = HarmonizedWeights(
        terms, init="balanced", parametrisation="exp", distillation_sum=None, dbt_share=0.5,
        learned=True, seed=0,
    )  # fmt: skip
    validation = BalancedValidation(net.num_exits, alpha=0.5, momentum=0.9)
    harmonizer = Harmonizer(
        weights, terms, validation, lr=0.05, pull=0.5, interval=2, nesterov_momentum=0.0
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        images, labels = batches[step % len(batches)]
        if harmonizer.due(step):
            harmonizer.before_step(net)
        optimizer.zero_grad()
        (weights() * terms(net(images), labels)).sum().backward()
        optimizer.step()
        if harmonizer.due(step):
            val = val_batches[step % len(val_batches)]
            harmonizer.after_step(net, [(images, labels)], val)
    return weights()
