"""What runs a network's stages: torch, or onnxruntime where that is faster."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch

from hdkd_cli.choices import RuntimeKind, RuntimeName
from hdkd_cli.errors import ExportError, UsageError
from hdkd_cli.inference.fold import deployed, memory_order
from hdkd_cli.inference.timing import in_turn
from hdkd_cli.models.contract import MultiExitNet

TRIAL_AFTER = 2.0
"""Seconds that torch works before ``auto`` builds onnxruntime's programs and tries them: about what
that takes. Few images pay nothing for it; many wait at most twice these seconds longer than if the
faster runtime had been known. [ours; the rule by which one buys skis that one has hired often]"""
_TRIAL_SECONDS = 0.5
_PACKAGES = ("onnx", "onnxruntime")


class Runtimes:
    """A trained network, ready in the runtimes that may run it; ``auto`` begins with torch.

    Args:
        trained: The network, on the CPU, in evaluation mode.
        device: What it is to run on.
        kind: Which runtime.

    Attributes:
        trained: The network as it was given.
        device: What it runs on.
        name: The one in use.
        net: The network there.
        reason: Why it is that one, once ``auto`` knows.

    Raises:
        UsageError: ``onnx``, and a package is missing, or the device is no CPU.
        ExportError: ``onnx``, and onnxruntime cannot run the network.
    """

    def __init__(self, trained: MultiExitNet, device: torch.device, kind: RuntimeKind) -> None:
        self.device = device
        self.trained, self._kind = trained, kind
        self._nets: dict[RuntimeName, MultiExitNet] = {}
        self._worked = 0.0
        self.name: RuntimeName = "torch"
        self.reason: str | None = None
        if kind == "onnx":
            if unusable := self._without_onnx():
                raise UsageError(f"--runtime onnx: {unusable}", hint="use --runtime torch")
            self._nets["onnx"] = self._built()
            self.name = "onnx"
        else:
            self._nets["torch"] = deployed(trained, device)
            if device.type != "cpu":
                self.reason = self._without_onnx()

    @property
    def net(self) -> MultiExitNet:
        """The network in the runtime in use."""
        return self._nets[self.name]

    @property
    def memory_order(self) -> torch.memory_format:
        """The order in which it likes its images."""
        return torch.contiguous_format if self.name == "onnx" else memory_order(self.device)

    def all(self) -> dict[RuntimeName, MultiExitNet]:
        """The network in every runtime that may be used, those of ``auto`` built now."""
        if self._kind == "auto" and self.reason is None and "onnx" not in self._nets:
            self.reason = self._without_onnx()
            if self.reason is None:
                try:
                    self._nets["onnx"] = self._built()
                except ExportError as problem:
                    self.reason = str(problem)
        return dict(self._nets)

    def worked(self, seconds: float) -> bool:
        """Count what was spent on images; whether it is time for a trial."""
        self._worked += seconds
        return self._kind == "auto" and self.reason is None and self._worked >= TRIAL_AFTER

    def decide(self, run: Callable[[MultiExitNet], Callable[[], object]], size: int) -> None:
        """From now on ``net`` is the network in the faster runtime.

        Args:
            run: From a network to what is timed.
            size: Images in it, for the reason.
        """
        arms = {name: run(net) for name, net in self.all().items()}
        if len(arms) < 2:
            return
        taken = in_turn(arms, self.device, seconds=_TRIAL_SECONDS)
        median = {name: float(np.median(taken[name])) for name in arms}
        (fast, fastest), (slow, slowest) = sorted(median.items(), key=lambda item: item[1])
        self.name = fast
        self.reason = f"{slowest / fastest:.2f} times as fast as {slow} on batches of {size}"

    def _without_onnx(self) -> str | None:
        """Why onnxruntime is out of the question."""
        if self.device.type != "cpu":
            return f"onnxruntime is used on the CPU, not on {self.device}"
        if missing := [name for name in _PACKAGES if find_spec(name) is None]:
            return f"onnx needs {', '.join(missing)}: pip install 'hdkd[export]'"
        return None

    def _built(self) -> MultiExitNet:
        from hdkd_cli.inference.onnx_stages import in_onnxruntime  # onnxruntime is an extra

        return in_onnxruntime(self.trained, torch.get_num_threads())
