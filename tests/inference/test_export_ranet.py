"""RANet as programs: what is resized, and the two tensors of a block that halves."""

import numpy as np
import pytest
import torch

from hdkd_cli.inference.export import export
from hdkd_cli.inference.exported_network import Network
from hdkd_cli.models import RANet

ARGUMENTS = {
    "scales": (1, 2, 2), "growth_factors": (2, 2, 1), "bottleneck_factors": (2, 1, 1), "blocks": 1,
    "block_step": 1, "step": 1, "step_mode": "even", "channels": 4, "growth": 4, "compress": 0.25,
    "reduction": 0.5, "stem": "cifar", "init": "he", "num_classes": 10, "image_size": 20,
}  # fmt: skip


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_programs_agree_with_their_stages(learned, tmp_path, to):
    if to == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    torch.manual_seed(0)
    net = RANet(**ARGUMENTS).eval()
    names, settings = learned.data.classes, learned.data.settings
    export(
        net,
        learned.policy,
        names,
        settings,
        to=to,
        folder=tmp_path / to,
        checkpoint_sha256="5" * 64,
    )
    network = Network(tmp_path / to, threads=1)
    images = learned.images[:7]
    state, tensors = net.start(images), [images.numpy()]
    with torch.no_grad():
        for stage, program in zip(net.stages, network.program_K, strict=True):
            state = stage.body(state)
            logits, *tensors = program(tensors)
            assert np.abs(logits - stage.head(state).numpy()).max() < 1e-4
