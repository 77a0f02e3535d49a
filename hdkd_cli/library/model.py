"""A trained network to use: images in, predictions out.

Shapes: K exits, B images, C classes, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from hdkd_cli.choices import RuntimeKind
from hdkd_cli.evaluation.audit import Auditing
from hdkd_cli.evaluation.policy import ExitPolicy
from hdkd_cli.inference.any_image import AnyImage, Transform, listed
from hdkd_cli.inference.predictor import Predictor
from hdkd_cli.library.run import Run
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.models.cost import ExitCosts
from hdkd_cli.records.prediction import Prediction
from hdkd_cli.settings.schema import Settings


@dataclass(frozen=True)
class Model:
    """What a run left behind.

    Attributes:
        run: The run it comes from.
    """

    run: Run
    _of_use: dict[tuple[str | None, RuntimeKind], Run] = field(default_factory=dict, repr=False)

    @cached_property
    def net(self) -> MultiExitNet:
        """The trained network, on the CPU, in evaluation mode: images (B,3,H,W) as `transform`
        makes them → logits (K,B,C)."""
        return self.run.network()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return self.run.classes

    @property
    def transform(self) -> Transform:
        """How an image is prepared: path, Pillow image or tensor → float32 (3,H,W), normalised."""
        return self.run.transform

    @cached_property
    def policy(self) -> ExitPolicy | None:
        """The exit policy calibrated last; None if there is none yet."""
        return self.run.policy() if self.run.has_policy() else None

    @property
    def costs(self) -> ExitCosts:
        """What each exit costs."""
        return self.run.costs

    @property
    def settings(self) -> Settings:
        """What the run was made with."""
        return self.run.settings

    def predict(
        self,
        images: AnyImage | Sequence[AnyImage] | Tensor,
        *,
        budget: str | float | None = None,
        policy: ExitPolicy | str | Path | None = None,
        device: str | None = None,
        runtime: RuntimeKind | None = None,
        top: int = 0,
    ) -> list[Prediction]:
        """Classify images; each leaves the network as soon as the policy lets it.

        Args:
            images: A path, a Pillow image, a tensor (3,H,W) of any size, uint8 or floating point
                from 0 to 1; several of them, mixed as they come; or a batch (B,3,H,W).
            budget: Mean cost: a fraction of the full network's, or an amount such as "30M". None:
                the policy's most accurate point.
            policy: A policy, its name in the run, a file; None: the one calibrated last, or the
                last exit, if there is none.
            device: auto, cpu, cuda, cuda:N or mps; None: the run's.
            runtime: torch, onnx (onnxruntime, on a CPU), or auto, the faster one once a trial pays;
                None: the run's.
            top: How many of the most probable classes a prediction lists.

        Raises:
            DataError: an image cannot be read, or is no image.
            UsageError: a budget without a policy, or one that cannot be met.
            PolicyError: the policy is missing, unusable, or of another network.
            ExportError: the runtime is onnx, and onnxruntime cannot run the network.
        """
        predictor = self._on(device, runtime).predictor(policy, budget=budget, top=top)
        return list(predictor.images(listed(images)))

    def predictor(
        self,
        policy: ExitPolicy | str | Path | None = None,
        *,
        budget: str | float | None = None,
        device: str | None = None,
        runtime: RuntimeKind | None = None,
        regroup: bool = False,
        top: int = 0,
        audit: Auditing | None = None,
    ) -> Predictor:
        """What `predict` uses, for streams of files: see `Predictor.files`."""
        return self._on(device, runtime).predictor(
            policy, budget=budget, regroup=regroup, top=top, audit=audit
        )

    def logits(self, images: AnyImage | Sequence[AnyImage] | Tensor) -> Tensor:
        """What every exit says: (K, B, C) float32, on the CPU.

        Args:
            images: As `predict` takes them.

        Raises:
            DataError: an image cannot be read, or is no image.
        """
        prepared = [self.transform(image) for image in listed(images)]
        if not prepared:
            return torch.empty(self.net.num_exits, 0, len(self.classes))
        with torch.inference_mode():
            batches = torch.split(torch.stack(prepared), self.run.images_per_pass)
            return torch.cat([self.net(batch) for batch in batches], dim=1).float().clone()

    def _on(self, device: str | None, runtime: RuntimeKind | None) -> Run:
        """The run on a device, in a runtime; what was made ready there stays ready."""
        device, runtime = device or self.run.device, runtime or self.run.runtime
        if (device, runtime) == (self.run.device, self.run.runtime):
            return self.run
        fresh = replace(self.run, device=device, runtime=runtime)
        return self._of_use.setdefault((device, runtime), fresh)
