"""What learning the weights costs: a stretch of ``hdkd`` over the same stretch of ``joint``.

    python benchmarks/overhead.py [--threads 1 --trials 5 --batch 64 --exits 5 7 11]

Both train the same MSDNet (base 1, step 1) on random pictures of CIFAR's size, in one process, a
step of the one after a step of the other. A trial's steps are those of one update interval, and
several where every step has an update, so each trial has the updates of training; that the weights
moved is checked. The terms and weights alone are timed at the largest number of exits and 1000
classes, forward and backward, beside a whole step without an update. Writes
benchmarks/results/overhead.json.

K exits, B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from claims import finish
from fixtures import cifar_like, hdkd_loop, settings_for
from harness import CPU, in_turn, options, ratios

from hdkd_cli.method.terms import Terms
from hdkd_cli.method.weights import HarmonizedWeights
from hdkd_cli.settings.schema import WeightSettings

TARGETS = {WeightSettings().interval: 1.15, 1: 3.0}
"""Update interval → at most this much of ``joint``."""
TARGET_TERMS_SHARE = 0.03


def network(exits: int) -> dict[str, object]:
    """The model section."""
    return {"name": "msdnet", "exits": exits, "base": 1, "step": 1}


def terms_alone(terms: Terms, weights: HarmonizedWeights, batch: int, classes: int) -> Callable:
    """A function that computes the weighted loss of given logits and its gradient."""
    logits_KBC = torch.randn(terms.num_exits, batch, classes, requires_grad=True)
    labels_B = torch.randint(classes, (batch,))

    def run() -> None:
        logits_KBC.grad = None
        (weights().detach() * terms(logits_KBC, labels_B)).sum().backward()

    return run


def measure(exits: int, interval: int, batch: int, trials: int) -> dict[str, object]:
    """One row of the table: a network, and how often its weights are updated."""
    model = network(exits)
    learned = settings_for(model, batch, "hdkd", interval=interval)
    state, step = hdkd_loop(learned)
    joint = settings_for(model, batch, "joint")
    arms = {"joint": hdkd_loop(joint)[1], "hdkd": step}
    in_turn(arms, trials=0, warmup=1)  # memory is laid out, kernels are chosen
    before = state.weights().detach().clone()
    seconds = in_turn(arms, trials=trials, warmup=0, calls=max(interval, 4))
    assert not torch.equal(before, state.weights()), "no update took place"
    return {
        "exits": exits,
        "interval": interval,
        "ratio": ratios(seconds["hdkd"], seconds["joint"]),
        "target": TARGETS[interval],
        "seconds": seconds,
    }


def measure_terms(exits: int, classes: int, batch: int, trials: int) -> dict[str, object]:
    """What the terms and weights are of a step."""
    settings = settings_for(network(exits), batch, "naive-dkd")
    state, step = hdkd_loop(settings, cifar_like(settings, classes))
    assert state.net.num_classes == classes
    alone = terms_alone(state.terms, state.weights, batch, classes)
    seconds = in_turn({"terms": alone, "step": step}, trials=trials)
    return {
        "exits": exits,
        "classes": classes,
        "share": ratios(seconds["terms"], seconds["step"]),
        "target": TARGET_TERMS_SHARE,
        "seconds": seconds,
    }


def main() -> None:
    """Measure, write the record, print what it says."""
    given = options(__doc__, threads=1, trials=5, batch=64, exits=[5, 7, 11])
    finish(
        "overhead",
        "wall time of hdkd over joint on one network, and the terms' share of a step",
        device=str(CPU),
        batch=given.batch,
        trials=given.trials,
        rows=[
            measure(exits, interval, given.batch, given.trials)
            for exits in given.exits
            for interval in TARGETS
        ],
        terms=measure_terms(max(given.exits), 1000, given.batch, given.trials),
    )


if __name__ == "__main__":
    main()
