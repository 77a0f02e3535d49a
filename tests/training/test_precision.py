"""The loss scale against PyTorch's own update rule."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hdkd_cli.errors import SettingsError
from hdkd_cli.settings.schema import TrainingSettings
from hdkd_cli.training.precision import LossScale, autocast_dtype

CPU = torch.device("cpu")


@given(st.lists(st.booleans(), max_size=40))
def test_scale_follows_torchs_rule(overflows):
    ours = LossScale(TrainingSettings(precision="fp16"), CPU)
    ours.growth_interval = 3
    scale, tracker = ours.scale.clone(), torch.zeros((), dtype=torch.int32)
    for overflow in overflows:
        found = torch.tensor(float(overflow))
        torch._amp_update_scale_(scale, tracker, found, 2.0, 0.5, 3)
        ours.update(torch.tensor(overflow))
        assert ours.scale == scale
        assert ours.good_steps == tracker
    assert ours.skipped == sum(overflows)


def test_other_precisions_do_not_scale():
    scale = LossScale(TrainingSettings(precision="bf16"), CPU)
    scale.update(torch.tensor(True))
    assert scale.scale == 1
    assert bool(scale.hopeless())


def test_round_trip():
    first, second = (LossScale(TrainingSettings(precision="fp16"), CPU) for _ in range(2))
    first.update(torch.tensor(True))
    second.load(first.tensors())
    assert second.tensors() == first.tensors()


def test_fp16_needs_cuda():
    with pytest.raises(SettingsError, match="fp16 needs a CUDA device"):
        autocast_dtype("fp16", CPU)
    assert autocast_dtype("bf16", CPU) is torch.bfloat16
    assert autocast_dtype("fp32", CPU) is None
