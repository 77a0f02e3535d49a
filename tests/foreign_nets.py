"""MSDNet and RANet as the public repositories lay them out, written anew for these tests.

The names of all parameters are those of kalviny/MSDNet-PyTorch, LeapLabTHU/L2W-DEN and
yangle15/RANet-pytorch, and so is the order of computation: every scale of every layer, all at once.
Settings are given by the names of this package.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


class Cbr(nn.Module):
    def __init__(self, a: int, b: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        conv = nn.Conv2d(a, b, kernel, stride, kernel // 2, bias=False)
        self.net = nn.Sequential(conv, nn.BatchNorm2d(b), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Bottleneck(nn.Module):
    def __init__(self, a: int, b: int, factor: int, stride: int = 1) -> None:
        super().__init__()
        inner = min(a, factor * b)
        self.net = nn.Sequential(
            nn.Conv2d(a, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(),
            nn.Conv2d(inner, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class First(nn.Module):
    """``widths`` and ``strides`` in the order of computation, finest first."""

    def __init__(self, stem: str, widths: list[int], strides: list[int]) -> None:
        super().__init__()
        first: nn.Module = Cbr(3, widths[0])
        if stem == "imagenet":
            conv = nn.Conv2d(3, widths[0], 7, 2, 3)
            first = nn.Sequential(conv, nn.BatchNorm2d(widths[0]), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        rest = [
            Cbr(a, b, stride=s) for a, b, s in zip(widths, widths[1:], strides[1:], strict=False)
        ]
        self.layers = nn.ModuleList([first, *rest])

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for layer in self.layers:
            x = layer(x)
            found.append(x)
        return found


class Classifier(nn.Module):
    def __init__(self, stem: str, width: int, classes: int) -> None:
        super().__init__()
        inner = 128 if stem == "cifar" else width
        self.m = nn.Sequential(
            Cbr(width, inner, stride=2), Cbr(inner, inner, stride=2), nn.AvgPool2d(2)
        )
        self.linear = nn.Linear(inner, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.m(x).flatten(1))


class Grow(nn.Module):
    """What a scale gains, from itself and, if ``finer``, from the next finer one."""

    def __init__(self, n: int, a: SimpleNamespace, scale: int, finer: bool) -> None:
        super().__init__()
        g, b, added = a.growth_factors, a.bottleneck_factors, a.growth * a.growth_factors[scale]
        if finer:
            self.conv_down = Bottleneck(n * g[scale - 1], added // 2, b[scale - 1], 2)
            added //= 2
        self.conv_normal = Bottleneck(n * g[scale], added, b[scale])

    def forward(self, x: list[Tensor]) -> Tensor:
        down = [self.conv_down(x[0])] if len(x) == 2 else []
        return torch.cat([x[-1], *down, self.conv_normal(x[-1])], 1)


class GridLayer(nn.Module):
    def __init__(self, n: int, a: SimpleNamespace, scales_in: int, scales_out: int) -> None:
        super().__init__()
        scales = len(a.growth_factors)
        self.dropped = scales_in > scales_out
        self.layers = nn.ModuleList(
            Grow(n, a, s, self.dropped or s > scales - scales_out)
            for s in range(scales - scales_out, scales)
        )

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        if self.dropped:
            return [layer([x[i], x[i + 1]]) for i, layer in enumerate(self.layers)]
        return [layer(x[max(0, i - 1) : i + 1]) for i, layer in enumerate(self.layers)]


class Parallel(nn.Module):
    def __init__(self, modules: list[nn.Module]) -> None:
        super().__init__()
        self.m = nn.ModuleList(modules)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [m(y) for m, y in zip(self.m, x, strict=True)]


class ForeignMSDNet(nn.Module):
    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        a = SimpleNamespace(**arguments)
        g, scales, n = a.growth_factors, len(a.growth_factors), a.channels
        even = a.step_mode == "even"
        steps = [a.base, *(a.step if even else a.step * i + 1 for i in range(1, a.exits))]
        total, layer = sum(steps), 0
        self.blocks, self.classifier = nn.ModuleList(), nn.ModuleList()
        for k, step in enumerate(steps):
            block: list[nn.Module] = []
            if k == 0:
                block.append(First(a.stem, [n * f for f in g], [1] + [2] * (scales - 1)))
            for _ in range(step):
                layer += 1
                if a.prune == "max":
                    interval = math.ceil(total / scales)
                    into = scales - max(0, layer - 2) // interval
                    out = scales - (layer - 1) // interval
                    reduce = into > out
                else:
                    into = min(scales, total - layer + 2)
                    out = min(scales, total - layer + 1)
                    reduce = layer in (total // 3, 2 * total // 3)
                block.append(GridLayer(n, a, into, out))
                n += a.growth
                if reduce:
                    kept = math.floor(a.reduction * n)
                    block.append(Parallel([Cbr(n * f, kept * f, 1) for f in g[scales - out :]]))
                    n = kept
            self.blocks.append(nn.Sequential(*block))
            self.classifier.append(Classifier(a.stem, n * g[-1], a.num_classes))

    def forward(self, x: Any) -> Tensor:
        logits = []
        for block, classifier in zip(self.blocks, self.classifier, strict=True):
            x = block(x)
            logits.append(classifier(x[-1]))
        return torch.stack(logits)


def _like(x: Tensor, other: Tensor) -> Tensor:
    return interpolate(x, size=other.shape[2:], mode="bilinear", align_corners=True)


class Dense(nn.Module):
    def __init__(self, width: int, growth: int, factor: int) -> None:
        super().__init__()
        self.conv_normal = Bottleneck(width, growth, factor)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv_normal(x)], 1)


class Fuse(nn.Module):
    def __init__(
        self, width: int, low: int, growth: int, up: int, factors: tuple[int, int], stride: int
    ) -> None:
        super().__init__()
        self.conv_up = Bottleneck(low, up, factors[0])
        self.conv_normal = Bottleneck(width, growth - up, factors[1], stride)

    def forward(self, x: Tensor, low: Tensor) -> Tensor:
        own = self.conv_normal(x)
        return torch.cat([_like(x, own), _like(self.conv_up(low), own), own], 1)


class RaBlock(nn.Module):
    """``low``: widths of the block that it fuses with, before its first layer and after each."""

    def __init__(
        self, a: SimpleNamespace, i: int, width: int, layers: int, low: list[int] | None,
        down: bool, transition: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        growth, b = a.growth * a.growth_factors[i], a.bottleneck_factors
        self.widths = [width + j * growth for j in range(layers + 1)]
        self.width = self.widths[-1]
        if low is None:
            self.layers = nn.ModuleList(Dense(w, growth, b[i]) for w in self.widths[:-1])
        else:
            up = math.floor(a.compress * growth)
            self.layers = nn.ModuleList(
                Fuse(self.widths[j], low[j], growth, up, (b[i - 1], b[i]),
                     2 if down and j == layers - 1 else 1)
                for j in range(layers)
            )  # fmt: skip
            kept = math.floor(a.compress * self.width)
            self.conv_last = Cbr(low[-1], kept, 1)
            self.width += kept
        if transition:
            reduced = math.floor(a.reduction * self.width)
            self.trans = Cbr(self.width, reduced, 1)
            self.width = reduced

    def forward(self, x: Tensor, low: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        found = [x]
        for j, layer in enumerate(self.layers):
            x = layer(x) if low is None else layer(x, low[j])
            found.append(x)
        if low is not None:
            x = torch.cat([x, _like(self.conv_last(low[-1]), x)], 1)
        return (self.trans(x) if hasattr(self, "trans") else x), found


class ForeignRANet(nn.Module):
    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        a = SimpleNamespace(**arguments)
        sigma, size = list(a.scales), len(a.scales)
        depths = [0, *(a.blocks + a.block_step * i for i in range(size))]
        strides = [1 if i == size - 1 or sigma[i] == sigma[i + 1] else 2 for i in range(size)]
        widths = [a.channels * f for f in a.growth_factors]
        self.FirstLayer = First(a.stem, widths[::-1], strides[::-1])
        self.scale_flows, self.classifier = nn.ModuleList(), nn.ModuleList()
        steps, below = [a.step], []
        for i, s in enumerate(sigma):
            flow, width = nn.ModuleList(), widths[i]
            last_depths = depths[: i + 1][-(s - 1) :] if s > 1 else []
            for t in range(1, depths[i + 1] + 1):
                dense = t > depths[i]
                flow.append(
                    RaBlock(
                        a, i, width, steps[t - 1], None if dense else below[t - 1].widths,
                        down=t in last_depths,
                        transition=t in [j * depths[i + 1] // s for j in range(1, s)],
                    )
                )  # fmt: skip
                width = flow[-1].width
                if dense:
                    steps.append(a.step if a.step_mode == "even" else steps[-1] + a.step)
                    self.classifier.append(Classifier(a.stem, width, a.num_classes))
            self.scale_flows.append(flow)
            below = list(flow)

    def forward(self, x: Tensor) -> Tensor:
        starts, low, classifiers = self.FirstLayer(x)[::-1], [], iter(self.classifier)
        logits = []
        for x, flow in zip(starts, self.scale_flows, strict=True):
            found = []
            for t, block in enumerate(flow):
                x, features = block(x, low[t] if t < len(low) else None)
                found.append(features)
                if t >= len(low):
                    logits.append(next(classifiers)(x))
            low = found
        return torch.stack(logits)


def random_statistics(net: nn.Module, seed: int = 0) -> None:
    """Weights and BatchNorm statistics as after training: none of them 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / 2)
            module.num_batches_tracked.fill_(77)
