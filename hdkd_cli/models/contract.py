"""What every network with several exits is: a chain of stages that hand on a state.

Shapes: K exits, B batch, C classes, H W pixels.

A stage turns the state of the stage before it into its own (``body``) and reads its logits off it
(``head``). Training runs all stages, early exit stops after one of them and narrows the state to
the samples that go on; both run the same code.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from hdkd_cli.choices import EquilibriumMode
from hdkd_cli.models.equilibrium import scale_gradient

State = dict[str, Tensor]
"""Named tensors, batch first."""


class Stage(nn.Module, ABC):
    """What lies between two exits, and the later one of them.

    Neither method changes the tensors it is given: the head and the onward path share them.
    """

    head_keys: tuple[str, ...]
    """The entries of the state that the head reads."""

    @abstractmethod
    def body(self, state: State) -> State:
        """From the previous stage's state to this one's, without what no later stage needs."""

    @abstractmethod
    def head(self, state: State) -> Tensor:
        """Logits (B, C) from the state that ``body`` returned."""

    def both(self, state: State) -> tuple[State, Tensor]:
        """``body``, and ``head`` of what it returned: for runtimes that do the two in one call."""
        state = self.body(state)
        return state, self.head(state)

    def head_modules(self) -> tuple[nn.Module, ...]:
        """The modules that ``head`` alone runs; none: this network does not tell them apart."""
        return ()


class MultiExitNet(nn.Module):
    """A network with K exits, the cheapest first.

    Args:
        stages: K stages, in order.
        name: What the architecture is called.
        num_classes: C.
        input_shape: (channels, H, W) of an image.
        arguments: What else determines the shapes of its parameters; must be JSON.
    """

    stages: Sequence[Stage]  # an nn.ModuleList, typed by what it holds
    gradient_equilibrium: EquilibriumMode

    def __init__(
        self,
        stages: Iterable[Stage],
        *,
        name: str,
        num_classes: int,
        input_shape: tuple[int, int, int],
        arguments: Mapping[str, object],
    ) -> None:
        super().__init__()
        self.stages = cast("Sequence[Stage]", nn.ModuleList(stages))
        self.name = name
        self.num_classes = num_classes
        self.input_shape = input_shape
        self.arguments = dict(arguments)
        self.gradient_equilibrium = "off"

    @property
    def num_exits(self) -> int:
        """K."""
        return len(self.stages)

    def head_parameters(self) -> list[nn.Parameter]:
        """The parameters of all heads, each once."""
        modules = [module for stage in self.stages for module in stage.head_modules()]
        return list(dict.fromkeys(p for module in modules for p in module.parameters()))

    def start(self, images_BCHW: Tensor) -> State:
        """The state that the first stage takes."""
        return {"image": images_BCHW}

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits (K, B, C) of all exits.

        Gradient equilibrium (Li et al., Improved Techniques for Training Adaptive Deep Networks,
        ICCV 2019): what exit i = 0..K−1 is read from has its gradient scaled by 1/(K−i), and what
        goes on from there by K−i−1. A stage then receives the mean, not the sum, of the gradients
        of the K−i losses behind it.
        """
        state = self.start(images_BCHW)
        logits = []
        for later, stage in zip(reversed(range(self.num_exits)), self.stages, strict=True):
            state = self._scaled(stage.body(state), stage, 1 / (later + 1))
            logits.append(stage.head(state))
            if later:
                state = self._scaled(state, stage, later)
        return torch.stack(logits)

    @contextmanager
    def true_gradients(self) -> Iterator[None]:
        """Inside, no gradient is scaled, whatever ``gradient_equilibrium`` says."""
        mode = self.gradient_equilibrium
        self.gradient_equilibrium = "off"
        try:
            yield
        finally:
            self.gradient_equilibrium = mode

    def _scaled(self, state: State, stage: Stage, factor: float) -> State:
        """``state`` with gradients scaled where gradient equilibrium acts after ``stage``."""
        if self.gradient_equilibrium == "off":
            return state
        keys = state if self.gradient_equilibrium == "state" else stage.head_keys
        return state | {key: scale_gradient(state[key], factor) for key in keys}

    def architecture(self) -> str:
        """Canonical JSON: equal for two networks exactly when one's weights fit the other."""
        description = {
            "name": self.name,
            "exits": self.num_exits,
            "classes": self.num_classes,
            "input": self.input_shape,
            "arguments": self.arguments,
        }
        return json.dumps(description, sort_keys=True, separators=(",", ":"))

    def eager_ownership(self) -> list[list[nn.Module]]:
        """For each exit, the modules that the *eager* cost convention charges to it.

        By default those of its stage, children included. A network whose stages postpone work
        that the convention charges to an earlier exit says so here.
        """
        return [list(stage.modules()) for stage in self.stages]


def narrow(state: State, index_B: Tensor) -> State:
    """Keep some samples of a state.

    Args:
        state: Named tensors, batch first.
        index_B: Which samples to keep: their numbers (int64), or a mask over the batch (bool).
    """
    return {key: tensor[index_B] for key, tensor in state.items()}
