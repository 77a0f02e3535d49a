"""What the stages of every built-in architecture keep: shared work, and nothing for too long."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_nets import images, msdnet_arguments, ranet_arguments, small_msdnet, small_ranet

from hdkd_cli.models import narrow

few = settings(max_examples=12, deadline=None)
architectures = pytest.mark.parametrize(
    "networks",
    [
        msdnet_arguments().map(lambda arguments: small_msdnet(**arguments)),
        ranet_arguments().map(lambda arguments: small_ranet(**arguments)),
    ],
    ids=["msdnet", "ranet"],
)


@architectures
@few
@given(data=st.data())
def test_a_stage_holds_what_its_exit_needs_and_no_earlier_one_does(networks, data):
    net = data.draw(networks).eval()
    names = [name for name, _ in net.named_parameters()]
    done: set[str] = set()
    state = net.start(images(net, 1))
    for k, stage in enumerate(net.stages):
        state = stage.body(state)
        gradients = torch.autograd.grad(
            stage.head(state).sum(), list(net.parameters()), retain_graph=True, allow_unused=True
        )
        needed = {n for n, g in zip(names, gradients, strict=True) if g is not None}
        here = {n for n in names if n.startswith(f"stages.{k}.")}
        # RANet's stem for higher resolutions comes first: the lowest is made from them.
        assert needed - done == here
        done |= needed
    assert done == set(names)


@architectures
@few
@given(data=st.data())
def test_the_state_holds_only_what_is_still_read(networks, data):
    net = data.draw(networks).eval()
    state = net.start(images(net, 1))
    for k, stage in enumerate(net.stages):
        state = {key: x.detach().requires_grad_() for key, x in stage.body(state).items()}
        assert len({x.untyped_storage().data_ptr() for x in state.values()}) == len(state)
        onward, read = state, [stage.head(state).sum()]
        for later in net.stages[k + 1 :]:
            onward = later.body(onward)
            read.append(later.head(onward).sum())
        gradients = torch.autograd.grad(sum(read), list(state.values()), allow_unused=True)
        assert all(g is not None for g in gradients), list(state)
        assert "image" not in state
    assert set(state) == set(net.stages[-1].head_keys)


@architectures
@few
@given(data=st.data())
def test_narrowed_samples_get_the_logits_of_the_whole_batch(networks, data):
    net = data.draw(networks).eval()
    x = images(net, 5)
    alive_B = torch.arange(5)
    with torch.no_grad():
        expected_KBC = net(x)
        state = net.start(x)
        for k, stage in enumerate(net.stages):
            state = stage.body(state)
            torch.testing.assert_close(
                stage.head(state), expected_KBC[k][alive_B], rtol=1e-11, atol=1e-11
            )
            keep = data.draw(
                st.lists(st.sampled_from(range(len(alive_B))), min_size=1, unique=True)
            )
            index_B = torch.tensor(keep)
            state, alive_B = narrow(state, index_B), alive_B[index_B]


@pytest.mark.parametrize("build", [small_msdnet, small_ranet])
def test_memory_order_changes_nothing_and_is_kept(build):
    net = build().eval()
    x = images(net, 2)
    expected_KBC = net(x)
    net = net.to(memory_format=torch.channels_last)
    state = net.stages[0].body(net.start(x.to(memory_format=torch.channels_last)))
    for key, tensor in narrow(state, torch.tensor([1, 0])).items():
        assert tensor.is_contiguous(memory_format=torch.channels_last), key
    torch.testing.assert_close(
        net(x.to(memory_format=torch.channels_last)), expected_KBC, rtol=1e-11, atol=1e-11
    )
