"""Other people's numbers, shown only beside exactly their network.

Growth 6 and growth 16, say, are different networks: a published point is found by the complete
architecture and the data set, never by a name. Top-1 in %, each in its source's own protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hdkd_cli.settings.networks import MSDNetSettings
from hdkd_cli.settings.schema import Settings

# Settings of a network that change its initial weights, not its architecture.
_NOT_ARCHITECTURE = frozenset({"init"})


@dataclass(frozen=True)
class Published:
    """A method's published numbers on one network.

    Attributes:
        method: Its name, venue and year.
        top1_pct_K: Accuracy of each exit.
        budgeted: (average cost in M "ops" as its source counts them, accuracy).
    """

    method: str
    top1_pct_K: tuple[float, ...]
    budgeted: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Network:
    """A network that others have published numbers on.

    Attributes:
        dataset: ``data.name``.
        model: Its architecture.
        source: Where the numbers are from.
        methods: The numbers.
    """

    dataset: str
    model: MSDNetSettings
    source: str
    methods: tuple[Published, ...]


def published_for(settings: Settings) -> Network | None:
    """The published numbers on the network and data set of ``settings``, if there are any."""
    if not isinstance(settings.model, MSDNetSettings):
        return None
    ours = _architecture(settings.model)
    for network in NETWORKS:
        if (network.dataset, _architecture(network.model)) == (settings.data.name, ours):
            return network
    return None


def _architecture(model: MSDNetSettings) -> dict[str, Any]:
    return model.model_dump(exclude=set(_NOT_ARCHITECTURE))


def _imagenet(base: int, step: int) -> MSDNetSettings:
    return MSDNetSettings(
        exits=5, base=base, step=step, channels=32, growth=16, growth_factors=(1, 2, 4, 4),
        bottleneck_factors=(1, 2, 4, 4), stem="imagenet",
    )  # fmt: skip


NETWORKS = (
    Network(
        "cifar100",
        MSDNetSettings(exits=7, base=4, step=2, growth=16),
        "tables of DFS (ECCV 2024); 300 epochs, batch 64 where nothing else is said",
        (
            Published(
                "joint training (MSDNet, ICLR 2018)",
                (64.10, 67.46, 70.34, 72.38, 73.06, 73.81, 73.89),
                ((58, 67.45), (93, 72.94), (139, 75.83), (170, 75.84), (300, 75.51)),
            ),
            Published(
                "gradient equilibrium (ICCV 2019)",
                (64.00, 68.41, 71.86, 73.50, 74.46, 75.39, 75.96),
                ((58, 67.90), (93, 74.45), (134, 76.64), (282, 76.13)),
            ),
            Published(
                "L2W-DEN (ECCV 2022)", (62.26, 67.18, 70.53, 73.10, 74.80, 76.05, 76.31)
            ),
            Published("PCGrad", (67.06, 71.37, 74.86, 75.78, 76.25, 76.95, 76.71)),
            Published("CAGrad", (68.78, 72.55, 74.23, 74.97, 75.35, 75.82, 76.08)),
            Published(
                "Meta-GF (ECCV 2022)",
                (67.97, 72.27, 75.06, 75.77, 76.38, 77.11, 77.47),
                ((59, 68.83), (92, 74.82), (174, 77.41), (299, 76.97)),
            ),
            Published(
                "DFS (ECCV 2024; batch 500, weight decay 5e-4)",
                (72.46, 75.64, 77.50, 78.54, 79.20, 79.45, 79.56),
                ((59, 72.83), (93, 78.02), (169, 79.87), (254, 79.68)),
            ),
        ),
    ),
    Network(
        "imagenet",
        _imagenet(4, 4),
        "Meta-GF and L2W-DEN (ECCV 2022)",
        (
            Published("joint training", (56.64, 65.14, 68.42, 69.77, 71.34)),
            Published("gradient equilibrium", (57.28, 66.22, 70.24, 71.71, 72.43)),
            Published("Meta-GF", (57.43, 64.82, 69.08, 71.67, 73.27)),
            Published(
                "L2W-DEN (100 epochs, batch 4096)", (59.54, 67.22, 71.03, 72.33, 73.93)
            ),
        ),
    ),
    Network(
        "imagenet",
        _imagenet(7, 7),
        "L2W-DEN (ECCV 2022) and the public MSDNet checkpoint",
        (
            Published(
                "joint training (public checkpoint, trained with the hold-out)",
                (62.90, 70.32, 73.00, 73.59, 74.59),
            ),
            Published("L2W-DEN (100 epochs)", (59.24, 69.65, 73.94, 75.66, 76.72)),
        ),
    ),
)  # fmt: skip
