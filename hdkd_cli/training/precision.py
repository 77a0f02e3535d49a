"""Mixed precision: autocast, and a loss scale for fp16 that never waits for the device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from hdkd_cli.errors import SettingsError
from hdkd_cli.settings.schema import TrainingSettings

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast dtype of ``training.precision``; None for fp32.

    Raises:
        SettingsError: the device cannot compute in that precision.
    """
    if precision == "fp16" and device.type != "cuda":
        raise SettingsError(
            f"training.precision fp16 needs a CUDA device, not {device}", hint="try bf16"
        )
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise SettingsError(
            f"training.precision bf16: {device} has no bf16 arithmetic", hint="try fp16"
        )
    return _DTYPES.get(precision)


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Context for forward passes; does nothing for float32."""
    if dtype is None:
        return nullcontext()
    return torch.autocast(device.type, dtype)


class LossScale:
    """Dynamic loss scaling for fp16 (Micikevicius et al., ICLR 2018), all of it on the device.

    The scale halves when a gradient overflowed and doubles after ``growth_interval`` good steps.
    Gradients that are not finite at a scale below 1 are no matter of scaling: the run diverged.

    Args:
        settings: Only fp16 scales; otherwise the scale is 1 and stays 1.
        device: Where the scale is.
    """

    growth_interval = 2000

    def __init__(self, settings: TrainingSettings, device: torch.device) -> None:
        self.active = settings.precision == "fp16"
        initial = 2.0**16 if self.active else 1.0
        self.scale = torch.tensor(initial, device=device)
        self.good_steps = torch.zeros((), device=device)
        self.skipped = torch.zeros((), device=device)

    def update(self, overflowed: Tensor) -> None:
        """Adapt to the outcome of a step; ``overflowed`` is a boolean scalar on the device."""
        if not self.active:
            return
        self.good_steps = torch.where(overflowed, 0.0, self.good_steps + 1)
        grown = self.good_steps >= self.growth_interval
        factor = torch.where(overflowed, 0.5, torch.where(grown, 2.0, 1.0))
        self.scale = self.scale * factor
        self.good_steps = torch.where(grown, 0.0, self.good_steps)
        self.skipped = self.skipped + overflowed

    def hopeless(self) -> Tensor:
        """Boolean scalar: the scale has fallen so far that scaling cannot be the reason."""
        return self.scale < 1.0 if self.active else torch.ones_like(self.scale, dtype=torch.bool)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"scale": self.scale, "good_steps": self.good_steps, "skipped": self.skipped}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what ``tensors`` gave."""
        device = self.scale.device
        self.scale = tensors["scale"].to(device)
        self.good_steps = tensors["good_steps"].to(device)
        self.skipped = tensors["skipped"].to(device)
