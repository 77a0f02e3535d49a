import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hdkd_cli.data.order import Order, Share, derived_seed
from hdkd_cli.data.splits import Split
from hdkd_cli.errors import SettingsError


def split_of(count: int, role: str = "train") -> Split:
    return Split(role, torch.arange(count) * 3 + 1, torch.zeros(count, dtype=torch.int64), str)


def first(order: Order, count: int, step: int = 0) -> list[tuple[int, int, list[int]]]:
    requests = itertools.islice(order.requests(step), count)
    return [(r.epoch, r.step, r.indices_B.tolist()) for r in requests]


@settings(deadline=None)
@given(
    count=st.integers(1, 40),
    batch=st.integers(1, 40),
    seed=st.integers(0, 5),
    step=st.integers(0, 99),
)
def test_any_step_can_be_the_first(count, batch, seed, step):
    batch = min(batch, count)
    order = Order(split_of(count), batch, seed)
    assert first(order, 3, step) == first(order, step + 3)[step:]


@settings(deadline=None)
@given(count=st.integers(1, 40), batch=st.integers(1, 40), seed=st.integers(0, 5))
def test_an_epoch_sees_no_image_twice_and_drops_the_rest(count, batch, seed):
    batch = min(batch, count)
    order = Order(split_of(count), batch, seed)
    assert order.steps_per_epoch == count // batch
    whole = order.steps_per_epoch
    for epoch in range(2):
        requests = first(order, whole, epoch * whole)
        assert [r[:2] for r in requests] == [(epoch, epoch * whole + i) for i in range(whole)]
        seen = [i for _, _, indices in requests for i in indices]
        assert len(seen) == len(set(seen)) == whole * batch
        assert set(seen) <= set(order.split.indices_N.tolist())


def test_order_depends_on_seed_epoch_and_role():
    base = first(Order(split_of(50), 50, seed=0), 2)
    assert base[0][2] != base[1][2]
    assert base[0][2] != first(Order(split_of(50), 50, seed=1), 1)[0][2]
    assert base[0][2] != first(Order(split_of(50, "val"), 50, seed=0), 1)[0][2]
    assert base == first(Order(split_of(50), 50, seed=0), 2)


def test_all_images_come_in_the_long_run():
    order = Order(split_of(10), 7, seed=0)  # three are dropped each epoch, not always the same
    assert {i for _, _, batch in first(order, 20) for i in batch} == {i * 3 + 1 for i in range(10)}


def test_a_split_smaller_than_a_batch_is_refused():
    with pytest.raises(SettingsError, match="train split has 9 images, fewer than one batch of 10"):
        Order(split_of(9), 10, seed=0)


def test_derived_seeds_differ():
    counters = [(s, p, e) for s in range(20) for p in ("order", "augment") for e in range(20)]
    seeds = {derived_seed(*c) for c in [*counters, (11, 1), (1, 11), (111,)]}
    assert len(seeds) == len(counters) + 3
    assert all(0 <= seed < 2**63 for seed in seeds)


@given(
    batches=st.integers(1, 4),
    images=st.integers(1, 5),
    ranks=st.integers(1, 4),
    step=st.integers(0, 9),
)
def test_ranks_share_out_the_batch_of_one_process(batches, images, ranks, step):
    batch = images * ranks
    split = split_of(batch * batches + 1)
    (whole,) = first(Order(split, batch, seed=0), 1, step)
    parts = []
    for rank in range(ranks):
        request = next(Order(split, batch, 0, Share(rank, ranks)).requests(step))
        assert (request.epoch, request.step, request.indices_B.tolist()) == whole
        parts.append(request.indices_B[request.part].tolist())
    assert [len(part) for part in parts] == [images] * ranks
    assert [index for part in parts for index in part] == whole[2]


@pytest.mark.parametrize(("role", "setting"), [("train", "training"), ("val", "weights.val")])
def test_shares_are_equal_or_refused(role, setting):
    with pytest.raises(SettingsError, match=rf"(?s)3 ranks.*10 {role} images.*{setting}"):
        Order(split_of(20, role), 10, 0, Share(2, 3))
