"""Training as it runs on a GPU, on machines that have none: tensors without values.

Under FakeTensorMode an operation computes shapes, types and devices only. So a tensor on the wrong
device fails here, and so does whatever needs a value from the device and would wait for it:
``.item()``, a branch on a tensor, a shape that depends on data.

What this cannot show: numbers; waits that ask for no value (a copy to the CPU, pageable memory);
kernels that are missing; memory; anything inside a captured CUDA graph. torch's C++ autograd engine
needs a real device behind the type ``cuda``: there, a stand-in gives every input a gradient of its
shape and device, and the true backward pass runs on the type ``cpu``, where waits show alike. Fakes
cannot do autocast and forward mode at once, so the weights' updates run in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest
import torch
from small_runs import changed, small_settings
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode

from hdkd_cli.data import Batch, ImageData, open_data
from hdkd_cli.method.terms import Terms
from hdkd_cli.training import step
from hdkd_cli.training.building import build_state
from hdkd_cli.training.distributed import ALONE
from hdkd_cli.training.loop import refuse_divergence
from hdkd_cli.training.monitor import accuracy_and_nll
from hdkd_cli.training.state import TrainState

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
BATCH = 16


@functools.cache
def digits() -> ImageData:
    """Real images, read before tensors lose their values."""
    return open_data(small_settings().data)


def apply_plainly(module: nn.Module, function, recurse: bool = True) -> nn.Module:
    """``Module._apply`` without torch's way of keeping a parameter's identity, which fakes lack."""
    for child in module.children() if recurse else ():
        apply_plainly(child, function)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            moved = function(parameter.detach())
            module._parameters[name] = nn.Parameter(moved, parameter.requires_grad)
    for name, buffer in module._buffers.items():
        module._buffers[name] = None if buffer is None else function(buffer)
    return module


@pytest.fixture
def pretended_gpu(monkeypatch):
    """What Python asks of CUDA is answered as a GPU would."""
    for name in ("is_available", "is_bf16_supported", "is_initialized"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, **__: True)
    monkeypatch.setattr(FakeTensorMode, "avoid_device_init", True, raising=False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "default_generators", (torch.Generator(),))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: None)


def fused_sgd(*lists: list[Tensor], grad_scale: Tensor, found_inf: Tensor, **_) -> None:
    """The fused optimiser's kernel, which has no rule for fakes: all it reads is on one device."""
    devices = {tensor.device for tensors in lists for tensor in tensors}
    assert devices == {grad_scale.device} == {found_inf.device}


@pytest.fixture(autouse=True)
def fakes(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(torch, "_fused_sgd_", fused_sgd)
    digits()
    monkeypatch.setattr(nn.Module, "_apply", apply_plainly)
    with FakeTensorMode():
        yield


@pytest.fixture
def stand_in_for_autograd(monkeypatch):
    """Gradients of the right shape where they are asked for, on the device of what they are of."""

    def grad(outputs, inputs, *_args, **_options):
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        assert all(output.requires_grad for output in outputs)
        inputs = [inputs] if isinstance(inputs, Tensor) else inputs
        return tuple(torch.empty_like(tensor) for tensor in inputs)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    leaves: list[nn.Parameter] = []

    def backward(loss: Tensor) -> None:
        assert loss.requires_grad
        for parameter in leaves:
            parameter.grad = torch.empty_like(parameter)

    monkeypatch.setattr(torch.autograd, "backward", backward)
    return leaves


def built(precision: str, device: torch.device, **training) -> TrainState:
    settings = changed(small_settings(), "training", precision=precision, **training)
    settings = changed(settings, "objective", gradient_equilibrium="state")
    state = build_state(settings, digits(), device)
    # fakes cannot do autocast and forward mode at once
    state.harmonizer.autocast_dtype = None
    assert all(p.device == device for p in state.net.parameters())
    assert all(isinstance(p, FakeTensor) for p in state.net.parameters())
    return state


def batch(device: torch.device) -> Batch:
    side = small_settings().data.image_size
    images = torch.empty(BATCH, 3, side, side, device=device)
    return Batch(images, torch.empty(BATCH, dtype=torch.int64, device=device))


def take_steps(state: TrainState) -> None:
    """Two steps, an update of the weights after the second."""
    given = batch(state.device)
    for _ in range(2):
        step.take_step(state, iter([given]), iter([given]), state.totals)
    ((number, row),) = state.totals.updates
    assert (number, row.device) == (2, state.device)
    assert state.weights().device == state.device


@pytest.mark.usefixtures("pretended_gpu")
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_and_an_update_of_the_weights_on_cuda(precision, accumulate, stand_in_for_autograd):
    state = built(precision, CUDA, accumulate=accumulate)
    stand_in_for_autograd.extend(state.net.parameters())
    take_steps(state)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_and_an_update_of_the_weights_never_wait(precision):
    take_steps(built(precision, CPU))


@pytest.mark.usefixtures("pretended_gpu")
def test_an_evaluation_waits_after_its_last_batch_alone():
    state = built("bf16", CUDA)
    seen = []

    def batches():
        for number in range(3):
            yield batch(CUDA)
            seen.append(number)

    with pytest.raises(DataDependentOutputException):  # reading the sums
        accuracy_and_nll(state.net, batches(), ALONE)
    assert seen == [0, 1, 2]


class Instead:
    """Loss terms that compute something else."""

    def __init__(self, terms: Terms, compute: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._terms, self._compute = terms, compute

    def __call__(self, logits_KBC: Tensor, labels_B: Tensor) -> Tensor:
        return self._compute(logits_KBC, labels_B)

    def __getattr__(self, name: str) -> object:
        return getattr(self._terms, name)


@pytest.mark.usefixtures("pretended_gpu")
def test_what_these_tests_are_to_find_is_found(monkeypatch, stand_in_for_autograd):
    state = built("bf16", CUDA)
    stand_in_for_autograd.extend(state.net.parameters())
    with pytest.raises(DataDependentOutputException):
        refuse_divergence(None, state)

    terms = state.terms

    def elsewhere(logits_KBC: Tensor, labels_B: Tensor) -> Tensor:
        return terms(logits_KBC, labels_B) + torch.empty(6, device=CPU)

    monkeypatch.setattr(state, "terms", Instead(terms, elsewhere))
    with pytest.raises(RuntimeError, match=r"same device|different devices"):
        take_steps(state)

    def waits(logits_KBC: Tensor, labels_B: Tensor) -> Tensor:
        return terms(logits_KBC, labels_B) * float(labels_B[0])

    monkeypatch.setattr(state, "terms", Instead(terms, waits))
    with pytest.raises(DataDependentOutputException):
        take_steps(state)
