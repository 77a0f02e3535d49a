"""What is trained when: everything at once, the heads alone, or the backbone first.

``mixed``: Kubaty et al., How to Train Your Multi-Exit Model?, 2024, who find it the best of the
three: first the backbone with its last exit, then all exits together.
"""

from __future__ import annotations

from torch import nn

from hdkd_cli.choices import Phase
from hdkd_cli.errors import SettingsError
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.settings.schema import TrainingSettings
from hdkd_cli.training.schedule import Schedule


class Regime:
    """Which parameters are trained and which modules train, step by step.

    Args:
        net: The network; its modes and ``requires_grad`` flags are this object's.
        training: The regime and its fraction.
        schedule: How long the run is.

    Attributes:
        first_steps: Steps before all exits are trained together; 0 but for ``mixed``.
        phase: What is trained now.

    Raises:
        SettingsError: the network does not say which modules are its heads.
    """

    def __init__(self, net: MultiExitNet, training: TrainingSettings, schedule: Schedule) -> None:
        self.net = net
        self.regime = training.regime
        self.first_steps = 0
        if self.regime == "mixed":
            self.first_steps = round(training.backbone_fraction * schedule.total)
        if self.regime != "joint":
            refuse_without_heads(net, "training.regime")
        self._trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
        self.phase: Phase | None = None
        self.enter(0)

    @property
    def ever_trained(self) -> list[nn.Parameter]:
        """The parameters that are trained at any time."""
        heads = set(self.net.head_parameters())
        return [p for p in self._trained if self.regime != "disjoint" or p in heads]

    def enter(self, step: int) -> None:
        """Be in the phase of the step with index ``step``."""
        phase = self._phase_of(step)
        if phase == self.phase:
            return
        self.phase = phase
        stages = list(self.net.stages)
        heads = set(self.net.head_parameters())
        if phase == "heads":
            trained = heads
        elif phase == "backbone":
            last = {p for module in stages[-1].head_modules() for p in module.parameters()}
            trained = set(self._trained) - heads | last
        else:
            trained = set(self._trained)
        for parameter in self._trained:
            parameter.requires_grad_(parameter in trained)
        self.net.train(phase != "heads")
        if phase == "heads":
            for stage in stages:
                for module in stage.head_modules():
                    module.train()

    def _phase_of(self, step: int) -> Phase:
        if self.regime == "disjoint":
            return "heads"
        return "backbone" if step < self.first_steps else "all"

    def updates_before(self, step: int, interval: int) -> int:
        """Updates of the loss weights due before step ``step``: none while one exit trains."""
        return step // interval - min(step, self.first_steps) // interval


def refuse_without_heads(net: MultiExitNet, setting: str) -> None:
    """See that heads can be told apart.

    Raises:
        SettingsError: ``setting`` needs it, and the network does not say.
    """
    if not all(stage.head_modules() for stage in net.stages):
        raise SettingsError(
            f"{setting}: {net.name} does not say which modules are its heads",
            hint="Stage.head_modules() of every stage names them",
            subject=setting,
        )
