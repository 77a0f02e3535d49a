"""BatchNorm and ReLU as one operator: against torch's modules in float64, and where it runs."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_nets import small_msdnet, small_ranet
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn import functional as F

from hdkd_cli.method.hypergradient import forward_mode
from hdkd_cli.models import MultiExitNet
from hdkd_cli.models.blocks import conv_bn_relu, fuse
from hdkd_cli.models.fused import Unavailable, batch_norm_relu, library
from hdkd_cli.models.fused.library import FLAGS, SOURCE, compiler

NHWC = torch.channels_last

try:
    library()
except Unavailable as reason:
    pytestmark = pytest.mark.skip(reason=str(reason))


class Block(nn.Module):
    """ReLU after BatchNorm: the operator, or torch's modules."""

    def __init__(self, norm: nn.BatchNorm2d, *, fused: bool) -> None:
        super().__init__()
        self.norm = norm
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm_relu(x, self.norm) if self.fused else F.relu(self.norm(x))


class Case:
    """An input, its direction and a gradient: the latter two are channel slices of wider ones."""

    def __init__(
        self, norm: nn.BatchNorm2d, x: Tensor, gradient: Tensor, direction: Tensor
    ) -> None:
        self.norm, self.x, self.gradient, self.direction = norm, x, gradient, direction

    def __repr__(self) -> str:
        return f"{self.norm}, x {tuple(self.x.shape)} of mean {self.x.mean():.3g}"

    def undecided(self) -> Tensor:
        """Where v is so near to zero that rounding decides its side."""
        return copy.deepcopy(self.norm).double()(self.x.double()).abs() < 1e-3

    def results(self, *, fused: bool, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Output, gradients, tangent and running statistics."""
        norm = copy.deepcopy(self.norm)
        x = self.x.clone(memory_format=torch.preserve_format)
        if dtype is not None:
            norm, x = norm.to(dtype), x.to(dtype)
        block = Block(norm, fused=fused)
        y = block(x.requires_grad_())
        y.backward(self.gradient.to(y.dtype))
        found = {
            "y": y.detach(),
            "to_x": x.grad,
            "to_weight": norm.weight.grad,
            "to_bias": norm.bias.grad,
            **{f"running_{name}": getattr(norm, f"running_{name}").clone() for name in MOMENTS},
            "batches": norm.num_batches_tracked.clone(),
        }
        along = torch.linspace(-1, 1, norm.num_features, dtype=norm.weight.dtype)
        with forward_mode():
            parameters = {
                f"norm.{name}": forward_ad.make_dual(getattr(norm, name).detach(), along)
                for name in ("weight", "bias")
            }
            dual = forward_ad.make_dual(x.detach(), self.direction.to(x.dtype))
            found["tangent"] = forward_ad.unpack_dual(
                functional_call(block, parameters, (dual,))
            ).tangent
        return found


MOMENTS = ("mean", "var")


@st.composite
def cases(draw: st.DrawFn, dtype: torch.dtype) -> Case:
    """Shapes from one pixel to several parts of sums; means that are far from zero."""
    seed = draw(st.integers(0, 2**16))
    generator = torch.Generator().manual_seed(seed)
    channels = draw(st.sampled_from([1, 2, 3, 6, 7, 12, 16, 24, 58, 116, 130, 1001]))
    batch = draw(st.integers(2, 4))
    height, width = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    if draw(st.booleans()) and channels < 30:
        batch, height, width = 16, 24, 24
    norm = nn.BatchNorm2d(
        channels,
        eps=draw(st.sampled_from([1e-5, 1e-3, 0.5])),
        momentum=draw(st.sampled_from([0.1, 0.5, 1.0])),
    )
    with torch.no_grad():
        for parameter, centre in ((norm.weight, 1.0), (norm.bias, 0.0)):
            parameter.copy_(centre + torch.randn(channels, generator=generator))
    mean = draw(st.sampled_from([0.0, 3.0, -20.0]))
    before, after = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))

    def drawn(wider: int) -> Tensor:
        x = torch.randn(batch, channels + wider, height, width, generator=generator)
        return x.to(dtype).to(memory_format=NHWC)

    def part() -> Tensor:
        return drawn(before + after)[:, before : before + channels]

    x = (drawn(0) + mean).to(memory_format=NHWC)
    case = Case(norm, x, part(), part())
    case.gradient[case.undecided()] = 0
    return case


def assert_near(case: Case, tolerance: float, of_sums: float) -> None:
    """The operator's results lie as near to float64 as the tolerances say.

    They are in units of the largest value, and where values cancel of what they cancel from.
    """
    exact = case.results(fused=False, dtype=torch.float64)
    ours = case.results(fused=True)
    assert ours["y"].dtype == case.x.dtype
    assert ours["y"].is_contiguous(memory_format=NHWC)
    values = case.x.shape[0] * case.x.shape[2] * case.x.shape[3]
    spread = case.x.double().var((0, 2, 3), correction=0).add(case.norm.eps).sqrt()
    steepest = (case.norm.weight.detach().abs() / spread).max()
    largest = {
        "to_x": steepest * case.gradient.abs().max(),
        "tangent": steepest * case.direction.abs().max(),
        "to_weight": values * case.gradient.abs().mean(),
        "to_bias": values * case.gradient.abs().mean(),
        "running_mean": case.norm.momentum * case.x.abs().mean(),
    }
    for name, expected in exact.items():
        error = (ours[name].double() - expected).abs()
        if name == "tangent":
            error = error[~case.undecided()]
        bound = tolerance if name in {"y", "to_x", "tangent"} else of_sums
        scale = max(largest.get(name, 0), expected.abs().max())
        assert error.numel() == 0 or error.max() <= bound * scale, name


@settings(max_examples=60)
@given(case=cases(torch.float32))
def test_float32_is_as_near_to_float64_as_float32_can_be(case):
    # a mean of 20 leaves the distances to it errors of 1e-6; where few values lie close together
    # that is a large part of their spread
    spread = case.x.double().var((0, 2, 3), correction=0).add(case.norm.eps).sqrt().min()
    tolerance = 1e-5 * max(1.0, 0.3 / spread.item())
    assert_near(case, tolerance, tolerance)


@settings(max_examples=30)
@given(case=cases(torch.bfloat16))
def test_bfloat16_rounds_only_what_it_writes(case):
    assert_near(case, tolerance=1.1 * 2.0**-8, of_sums=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [6, 58])
def test_slices_and_threads_change_no_bit(dtype, channels):
    torch.manual_seed(0)
    shape = (16, channels + 3, 24, 24)
    whole = torch.randn(shape).to(dtype).to(memory_format=NHWC)
    case = Case(
        nn.BatchNorm2d(channels),
        torch.randn(16, channels, 24, 24).to(dtype).to(memory_format=NHWC),
        whole[:, 1:-2],
        whole[:, 2:-1],
    )
    copied = Case(
        case.norm,
        case.x,
        case.gradient.contiguous(memory_format=NHWC),
        case.direction.contiguous(),  # NCHW: has to be reordered
    )
    expected = case.results(fused=True)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        in_threads = case.results(fused=True)
    finally:
        torch.set_num_threads(threads)
    for other in (copied.results(fused=True), in_threads):
        for name, tensor in expected.items():
            assert torch.equal(tensor, other[name]), name


def test_what_is_no_number_is_not_hidden():
    x = torch.ones(2, 3, 2, 2).to(memory_format=NHWC)
    x[0, 1, 0, 0] = torch.nan
    y = batch_norm_relu(x, nn.BatchNorm2d(3))
    assert y[:, 1].isnan().all()
    assert y[:, [0, 2]].eq(0).all()


def test_one_value_per_channel_is_refused_as_torch_does():
    x = torch.ones(1, 3, 1, 1).to(memory_format=NHWC)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        batch_norm_relu(x, nn.BatchNorm2d(3))


def small_net() -> MultiExitNet:
    torch.manual_seed(1)
    return small_msdnet().float().to(memory_format=NHWC)


def other_net() -> MultiExitNet:
    torch.manual_seed(1)
    return small_ranet().float().to(memory_format=NHWC)


@pytest.mark.parametrize("make", [small_net, other_net])
def test_a_network_trains_as_it_does_in_float64(make):
    plain, fused = make().double(), make()
    fuse(fused)
    assert fused.state_dict().keys() == plain.state_dict().keys()
    images = torch.randn(8, *plain.input_shape).to(memory_format=NHWC)
    for net in (plain, fused):
        net(images.to(next(net.parameters()).dtype)).square().mean().backward()
    # what a BatchNorm after it undoes has a gradient of rounding errors alone
    least = 1e-3 * max(parameter.grad.norm() for parameter in plain.parameters())
    for (name, expected), parameter in zip(
        plain.named_parameters(), fused.parameters(), strict=True
    ):
        error = (parameter.grad - expected.grad).norm()
        assert error < 1e-4 * max(expected.grad.norm(), least), name
    for (name, expected), buffer in zip(plain.named_buffers(), fused.buffers(), strict=True):
        torch.testing.assert_close(buffer.double(), expected.double(), rtol=1e-4, atol=1e-5), name


def test_evaluation_is_that_of_the_plain_modules():
    plain, fused = small_net().eval(), small_net().eval()
    fuse(fused)
    images = torch.randn(4, 3, 20, 20).to(memory_format=NHWC)
    assert torch.equal(fused(images), plain(images))


def test_other_memory_orders_and_types_take_torchs_own():
    block, plain = conv_bn_relu(3, 4, 3), conv_bn_relu(3, 4, 3)
    plain.load_state_dict(block.state_dict())
    fuse(block)
    images = torch.randn(4, 3, 6, 6)
    assert torch.equal(block(images), plain(images))
    assert torch.equal(block.double()(images.double()), plain.double()(images.double()))


def test_no_compiler_is_told(monkeypatch):
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable, match="no C\\+\\+ compiler"):
        compiler()
    monkeypatch.setenv("CXX", f"{sys.executable} -E")
    assert compiler() == [sys.executable, "-E"]


@pytest.mark.slow
def test_processes_that_start_together_compile_and_keep_one_library(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", "from hdkd_cli.models.fused import library; library()"]
    running = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    (kept,) = (tmp_path / "hdkd" / "operators").iterdir()
    assert kept.suffix == ".so"


@pytest.mark.slow
def test_without_a_place_to_keep_it_the_library_serves_one_process(tmp_path):
    (tmp_path / "hdkd").write_text("in the way")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    code = "from hdkd_cli.models.fused import library; print(library().forward_float32)"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


WRONG = """#!/bin/sh
[ "$1" = --version ] && exec {compiler} --version
sed 's/v <= 0/v <= 9/' {source} > {folder}/wrong.cpp
exec {compiler} $(echo "$@" | sed 's|{source}|{folder}/wrong.cpp|')
"""


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [False, True])
def test_a_failing_compiler_is_told(tmp_path, wrong):
    code = (
        "from hdkd_cli.models.fused import Unavailable, library\n"
        "for _ in range(2):\n"
        "    try: library()\n"
        "    except Unavailable as reason: print(reason)\n"
    )
    command, said = "false", "false fails: it says nothing"
    if wrong:
        script = tmp_path / "wrong"
        names = {"compiler": compiler()[0], "source": SOURCE, "folder": tmp_path}
        script.write_text(WRONG.format(**names))
        script.chmod(0o700)
        command, said = str(script), f"what {script} makes of the operator is wrong"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "CXX": command}
    python = [sys.executable, "-c", code]
    done = subprocess.run(python, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [said] * 2
    assert not list(tmp_path.glob("cache/hdkd/operators/*"))


@pytest.mark.slow
def test_the_operator_stays_inside_its_memory(tmp_path):
    """All passes over many shapes, under the address and undefined behaviour sanitizers."""
    driver = Path(__file__).parent / "data" / "fused_driver.cpp"
    program = tmp_path / "driver"
    sanitizers = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    include = f"-I{SOURCE.parent}"
    command = [*compiler(), *FLAGS, *sanitizers, include, str(driver), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode and "san" in built.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
