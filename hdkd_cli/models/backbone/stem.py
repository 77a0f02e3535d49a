"""Stems for small images."""

from __future__ import annotations

from torch import Tensor, fx, nn
from torch.nn import functional as F

from hdkd_cli.errors import SettingsError
from hdkd_cli.models.backbone.trace import is_compound


def keep_size(traced: fx.GraphModule, name: str) -> None:
    """Let the layers before the first block keep the size of the image: no stride, no pool.

    Kernels stay, and with them pretrained weights. [ours]

    Raises:
        SettingsError: there is nothing to change before the first block, or there is no block.
    """
    changed = False
    for node in traced.graph.find_nodes(op="call_module", sort=True):
        module = traced.get_submodule(str(node.target))
        if is_compound(module):
            if changed:
                return
            break
        if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            traced.set_submodule(str(node.target), nn.Identity())
            changed = True
        for path, layer in list(module.named_modules(prefix=str(node.target))):
            if isinstance(layer, nn.Conv2d) and max(layer.stride) > 1:
                layer.stride = (1, 1)
                if type(layer) is nn.Conv2d:  # those of timm that pad by themselves go on so
                    traced.set_submodule(path, SameSizeConv(layer))
                changed = True
    raise SettingsError(
        f'model.stem = "small": {name} has no stride before its first block',
        hint="leave model.stem out",
        subject="model.stem",
    )


class SameSizeConv(nn.Conv2d):
    """``like`` without a stride, its own weights, padded to keep the size; even kernels too."""

    def __init__(self, like: nn.Conv2d) -> None:
        super().__init__(
            like.in_channels,
            like.out_channels,
            (like.kernel_size[0], like.kernel_size[1]),
            dilation=(like.dilation[0], like.dilation[1]),
            groups=like.groups,
            bias=like.bias is not None,
        )
        self.weight, self.bias = like.weight, like.bias
        height, width = (d * (k - 1) for d, k in zip(like.dilation, like.kernel_size, strict=True))
        self.margins = (width // 2, width - width // 2, height // 2, height - height // 2)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, self.margins))
