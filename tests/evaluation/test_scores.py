"""Score files: what is written is read back, and what is not a score file is refused by name."""

import re

import numpy as np
import pytest
import torch
from score_tables import FINGERPRINTS, make_scores

from hdkd_cli.errors import ScoresError
from hdkd_cli.evaluation.scores import Scores, read_scores, write_scores
from hdkd_cli.files import write_tensors

COSTS = ("macs_K", "macs_eager_K", "ops_K", "params_K")


def file_tensors(**changes):
    """Tensors of a good file with some replaced, or left out where None."""
    scores = make_scores()
    tensors = {
        "logits": torch.from_numpy(scores.logits_KNC),
        "labels": torch.from_numpy(scores.labels_N),
        "macs": torch.tensor(scores.macs_K),
        **changes,
    }
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_file_holds_everything(tmp_path, dtype):
    written = make_scores(logits_KNC=make_scores().logits_KNC.astype(dtype))
    write_scores(tmp_path / "s.safetensors", written)
    read = read_scores(tmp_path / "s.safetensors")
    assert read.logits_KNC.dtype == dtype
    assert np.array_equal(read.logits_KNC, written.logits_KNC)
    assert np.array_equal(read.labels_N, written.labels_N)
    assert read.meta == FINGERPRINTS
    for name in COSTS:
        assert getattr(read, name) == getattr(written, name)


def test_optional_costs_may_be_absent(tmp_path):
    scores = make_scores(macs_eager_K=None, ops_K=None, params_K=None, meta={})
    write_scores(tmp_path / "s.safetensors", scores)
    read = read_scores(tmp_path / "s.safetensors")
    assert (read.macs_eager_K, read.ops_K, read.params_K, read.meta) == (None, None, None, {})


def test_foreign_tensors_are_ignored(tmp_path):
    write_tensors(tmp_path / "s.safetensors", file_tensors(features=torch.zeros(3).bfloat16()))
    assert read_scores(tmp_path / "s.safetensors").num_exits == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None, "macs": None}, "no tensor named labels, macs"),
        ({"logits": torch.zeros(3, 60, 7, dtype=torch.float64)}, "logits are float64"),
        ({"logits": torch.zeros(3, 60, 7).bfloat16()}, "(?i)bf(loat)?16"),
        ({"logits": torch.zeros(60, 7)}, r"logits have shape \(60, 7\)"),
        ({"logits": torch.zeros(3, 60, 1)}, "two classes"),
        ({"logits": torch.zeros(3, 0, 7), "labels": torch.zeros(0).long()}, "one sample"),
        ({"logits": torch.zeros(0, 60, 7)}, "one exit"),
        ({"labels": torch.zeros(60)}, "labels are float32"),
        ({"labels": torch.zeros(59, dtype=torch.int64)}, r"int64 of shape \(60,\)"),
        ({"labels": torch.full((60,), 7)}, r"from 7 to 7, outside 0..6 \(7 classes\)"),
        ({"labels": torch.full((60,), -1)}, "from -1 to -1"),
        ({"macs": torch.tensor([1, 2])}, "macs has 2 entries for 3 exits"),
        ({"macs": torch.tensor([1, 3, 3])}, r"grow from exit to exit: \[1, 3, 3\]"),
        ({"macs": torch.tensor([0, 1, 2])}, "positive"),
        ({"macs": torch.tensor([1.0, 2.0, 3.0])}, "macs is float32"),
        ({"macs": torch.tensor(5)}, r"macs is int64 of shape \(\)"),
        ({"ops": torch.tensor([3, 2, 1])}, "ops must be positive and grow"),
    ],
)
def test_unfit_content_is_refused(tmp_path, changes, message):
    path = tmp_path / "s.safetensors"
    write_tensors(path, file_tensors(**changes))
    with pytest.raises(ScoresError, match=message) as raised:
        read_scores(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_logits_that_are_not_finite_are_counted(bad, dtype):
    logits_KNC = make_scores().logits_KNC.astype(dtype)
    logits_KNC[1, 3, 2] = logits_KNC[1, 40, 0] = logits_KNC[2, 0, 0] = bad
    with pytest.raises(ScoresError, match="exit 2: 2 of 420 logits are NaN or infinite"):
        make_scores(logits_KNC=logits_KNC)


def test_logits_whose_differences_overflow_are_refused():
    make_scores(logits_KNC=np.full((3, 60, 7), 1e30, np.float32))
    with pytest.raises(ScoresError, match=r"exit 1: logits reach 3.4e\+38"):
        make_scores(logits_KNC=np.full((3, 60, 7), np.finfo(np.float32).max))


def test_tensors_are_no_arrays():
    with pytest.raises(ScoresError, match=r"logits are a Tensor.*numpy\(force=True\)"):
        make_scores(logits_KNC=torch.zeros(3, 60, 7))


def test_tied_parameters_need_not_grow():
    assert make_scores(params_K=(5, 5, 5)).params_K == (5, 5, 5)


def test_a_pickle_is_never_opened(tmp_path):
    torch.save(file_tensors(), tmp_path / "s.pt")
    with pytest.raises(ScoresError, match="pickle"):
        read_scores(tmp_path / "s.pt")


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "s.safetensors"
    write_scores(path, make_scores())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ScoresError, match=re.escape(str(path))):
        read_scores(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ScoresError, match="no such file"):
        read_scores(tmp_path / "s.safetensors")


def test_sizes():
    scores = make_scores(exits=2, samples=5, classes=4)
    assert (scores.num_exits, scores.num_samples, scores.num_classes) == (2, 5, 4)
    assert isinstance(scores, Scores)
