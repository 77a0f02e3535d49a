"""One pass of a network over a split: images in, `Scores` out. K exits, B batch, C classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hdkd_cli.errors import ScoresError
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.models.modes import evaluating

if TYPE_CHECKING:
    from hdkd_cli.models.contract import MultiExitNet
    from hdkd_cli.models.cost import ExitCosts

_PRECISION = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def collect(
    net: MultiExitNet,
    batches: Iterable[tuple[Tensor, Tensor]],
    costs: ExitCosts,
    meta: Mapping[str, str],
    *,
    autocast: torch.dtype | None = None,
) -> Scores:
    """Scores of ``net`` on ``batches``. The network is left in the mode it was in.

    Args:
        net: The network, on the device of the batches.
        batches: (images, labels (B,)); never augmented, in a fixed order.
        costs: Cost of each exit.
        meta: Fingerprints for the scores; ``precision`` is added here.
        autocast: Lower precision of the forward pass; None: float32. Logits are kept as float32.

    Raises:
        ScoresError: there are no batches, or the network's logits are not finite.
    """
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    with evaluating(net), torch.inference_mode():
        for images, labels_B in batches:
            with torch.autocast(images.device.type, autocast, enabled=autocast is not None):
                logits_KBC = net(images)
            logits.append(logits_KBC.float().cpu())
            labels.append(labels_B.cpu())
    if not labels:
        raise ScoresError("no scores to collect: the split has no images")
    return Scores(
        logits_KNC=torch.cat(logits, dim=1).numpy(),
        labels_N=torch.cat(labels).numpy(),
        macs_K=costs.macs_K,
        macs_eager_K=costs.macs_eager_K,
        ops_K=costs.ops_K,
        params_K=costs.params_K,
        meta={**meta, "precision": _PRECISION[autocast]},
    )
