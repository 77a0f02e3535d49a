"""Events as TensorBoard scalars (needs the ``tensorboard`` extra)."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from hdkd_cli.errors import UsageError
from hdkd_cli.training.events import (
    Evaluated,
    Event,
    RunStarted,
    StepLogged,
    TradeoffsMoved,
    WeightsUpdated,
)


class TensorBoardSink:
    """Writes losses, weights, accuracies, speed and learning rate; a context manager.

    Args:
        folder: Where the event files go.

    Raises:
        UsageError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UsageError(
                "--tensorboard: install it with `pip install hdkd[tensorboard]`"
            ) from None
        self._writer = SummaryWriter(str(folder))
        self._terms: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def __call__(self, event: Event) -> None:
        """Receive an event."""
        match event:
            case RunStarted():
                self._terms = tuple(term.name for term in event.terms)
            case StepLogged():
                scalars = {
                    "train/loss": event.loss,
                    "train/lr": event.lr,
                    "train/images_per_s": event.images_per_s,
                }
                named = zip(self._terms, event.terms_T, event.weights_T, strict=True)
                for name, loss, weight in named:
                    scalars |= {f"terms/{name}": loss, f"weights/{name}": weight}
                for k, accuracy in enumerate(event.train_top1_pct_K, start=1):
                    scalars[f"train_top1_pct/{k}"] = accuracy
                self._write(scalars, event.step)
            case WeightsUpdated():
                scalars = {"weights_val/objective": event.val_loss}
                scalars["weights_val/applied"] = float(event.applied)
                for k, ce in enumerate(event.val_ce_K, start=1):
                    scalars[f"weights_val_ce/{k}"] = ce
                for name, derivative in zip(self._terms, event.hypergradient_T, strict=True):
                    scalars[f"hypergradient/{name}"] = derivative
                self._write(scalars, event.step)
            case TradeoffsMoved():
                moved = zip(event.names, event.phi_M, strict=True)
                self._write({f"tradeoffs/{name}": phi for name, phi in moved}, event.step)
            case Evaluated():
                scalars = {}
                for k, (accuracy, nll) in enumerate(
                    zip(event.top1_pct_K, event.nll_K, strict=True), start=1
                ):
                    scalars |= {f"val_top1_pct/{k}": accuracy, f"val_nll/{k}": nll}
                self._write(scalars, event.step)

    def _write(self, scalars: dict[str, float], step: int) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
