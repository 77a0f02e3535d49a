"""What it costs to leave at each exit: parameters, multiply-accumulates, and the field's "FLOPs".

Shapes: K exits. All costs are for one image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hdkd_cli.method.hypergradient import plain_attention
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.models.modes import evaluating


@dataclass(frozen=True)
class ExitCosts:
    """Cost of leaving at exit k, everything before it and all earlier heads included.

    ``macs_K`` is what ``forward`` really executes: multiply-accumulates of convolutions, linear
    layers and activation products, biases not counted. ``macs_eager_K``, ``ops_K`` and
    ``params_K`` charge modules to exits as ``MultiExitNet.eager_ownership`` says.

    ``ops_K`` is what the MSDNet family of repositories prints as FLOPs: the eager
    multiply-accumulates, plus the elements a ReLU reads, plus the window size for each element a
    pooling layer writes, plus the biases of linear layers.
    """

    params_K: tuple[int, ...]
    macs_K: tuple[int, ...]
    macs_eager_K: tuple[int, ...]
    ops_K: tuple[int, ...]


class _Run(NamedTuple):
    """One call of one leaf module."""

    module: nn.Module
    stage: int
    macs: int
    extra: int  # what ``ops`` adds to ``macs``


def measure_costs(net: MultiExitNet) -> ExitCosts:
    """Count the costs of ``net`` by running it once on one blank image, on the device it is on.

    On the meta device nothing is computed and the costs are the same. The network's mode,
    buffers and device stay as they are.
    """
    macs_K, runs = _observe(net)
    groups = [set(group) for group in net.eager_ownership()]
    owner = {module: k for k in reversed(range(net.num_exits)) for module in groups[k]}
    eager_K, extra_K = list(macs_K), [0] * net.num_exits
    for run in runs:
        payer = run.stage if run.module in groups[run.stage] else owner.get(run.module, run.stage)
        eager_K[run.stage] -= run.macs
        eager_K[payer] += run.macs
        extra_K[payer] += run.extra
    return ExitCosts(
        params_K=_count_parameters(groups),
        macs_K=tuple(accumulate(macs_K)),
        macs_eager_K=tuple(accumulate(eager_K)),
        ops_K=tuple(accumulate(a + b for a, b in zip(eager_K, extra_K, strict=True))),
    )


def _observe(net: MultiExitNet) -> tuple[list[int], list[_Run]]:
    """MACs of each stage, and every call of a leaf module."""
    like = next(net.parameters())
    image = torch.zeros(1, *net.input_shape, device=like.device, dtype=like.dtype)
    macs_K: list[int] = []
    runs: list[_Run] = []
    with ExitStack() as stack:
        stack.enter_context(countable(net))
        counter = stack.enter_context(FlopCounterMode(display=False))

        def macs_so_far() -> int:
            return int(counter.get_total_flops()) // 2  # it counts two per multiply-accumulate

        entered: dict[nn.Module, int] = {}

        def enter(module: nn.Module, _args: tuple[Any, ...]) -> None:
            entered[module] = macs_so_far()

        def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            macs = macs_so_far() - entered[module]
            runs.append(_Run(module, len(macs_K), macs, _extra_ops(module, args, output)))

        for module in net.modules():
            if not any(module.children()):
                stack.callback(module.register_forward_pre_hook(enter).remove)
                stack.callback(module.register_forward_hook(leave).remove)

        state = net.start(image)
        for stage in net.stages:
            before = macs_so_far()
            state = stage.body(state)
            stage.head(state)
            macs_K.append(macs_so_far() - before)
    return macs_K, runs


@contextmanager
def countable(net: nn.Module) -> Iterator[None]:
    """Inside, ``net`` evaluates, and through operators that the flop counter knows.

    Nothing requires gradients: the counter would look for those of a block that is given a
    parameter (a class token, say) and stumble, since none are recorded.
    """
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    net.requires_grad_(False)
    try:
        with evaluating(net), torch.no_grad(), plain_attention():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_()


def _extra_ops(module: nn.Module, args: tuple[Any, ...], output: Any) -> int:
    """What the ``ops`` convention counts for one call beyond multiply-accumulates."""
    match module:
        case nn.ReLU():
            elements: Tensor = args[0]
            return elements.numel()
        case nn.AvgPool2d(kernel_size=size) | nn.MaxPool2d(kernel_size=size):
            height, width = size if isinstance(size, tuple) else (size, size)
            return int(output.numel()) * height * width
        case nn.Linear(bias=Tensor()):
            return int(output.numel())
        case _:
            return 0


def _count_parameters(groups: Sequence[set[nn.Module]]) -> tuple[int, ...]:
    """Parameters of the first k groups, each counted once."""
    seen: set[nn.Parameter] = set()
    counts_K = []
    for group in groups:
        seen.update(p for module in group for p in module.parameters())
        counts_K.append(sum(p.numel() for p in seen))
    return tuple(counts_K)
