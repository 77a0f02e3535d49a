"""Two images of a batch made one: Zhang et al., mixup, ICLR 2018; Yun et al., CutMix, ICCV 2019."""

from __future__ import annotations

from collections.abc import Callable

from hdkd_cli.data import Batch
from hdkd_cli.settings.schema import TrainingSettings

Mix = Callable[[Batch], Batch]


def mixing(settings: TrainingSettings, num_classes: int) -> Mix | None:
    """What is done to a batch: its labels become probabilities (B, C). None: nothing.

    It draws from torch's global CPU generator. With both, each batch gets one of the two.
    """
    if not (settings.mixup or settings.cutmix):
        return None
    from torchvision.transforms import v2

    kinds = []
    if settings.mixup:
        kinds.append(v2.MixUp(alpha=settings.mixup, num_classes=num_classes))
    if settings.cutmix:
        kinds.append(v2.CutMix(alpha=settings.cutmix, num_classes=num_classes))
    mix = v2.RandomChoice(kinds)
    return lambda batch: Batch(*mix(*batch))
