"""A plan: what is trained in which order, and what a wrong one says."""

from pathlib import Path

import pytest

from hdkd_cli.errors import HdkdError
from hdkd_cli.study.plan import Cell, cells, followed_by, read_plan, resolved

PLAN = """
[study]
seeds = [0, 1]
references = ["joint"]
[settings.small]
preset = "digits"
set = { "training.epochs" = 2, "model.exits" = 3 }
[methods.follows]
set = { method = "naive-dkd" }
replay = { method = "learned", as = "permuted", seed = 1 }
[methods.joint]
set = { method = "joint" }
[methods.learned]
set = { method = "hdkd", "training.epochs" = 3 }
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    return path


def test_a_seed_is_whole_before_the_next_and_what_is_followed_comes_first(tmp_path):
    plan = read_plan(written(tmp_path, PLAN))
    order = cells(plan)
    assert len(order) == len(set(order)) == 6
    assert order[0] == Cell("small", "learned", 1)  # followed by the next one
    assert [c.seed for c in order[1:]] == [0, 0, 0, 1, 1]
    for cell in order:
        followed = followed_by(plan, cell)
        assert followed is None or order.index(followed) < order.index(cell)


def test_a_methods_settings_lie_over_those_of_the_setting(tmp_path):
    plan = read_plan(written(tmp_path, PLAN))
    runs = tmp_path / "runs"
    joint = resolved(plan, Cell("small", "joint", 1), runs).settings
    assert (joint.training.epochs, joint.model.exits, joint.training.seed) == (2, 3, 1)
    assert (joint.objective.teachers, joint.weights.learned) == ("none", False)
    assert resolved(plan, Cell("small", "learned", 0), runs).settings.training.epochs == 3
    follows = resolved(plan, Cell("small", "follows", 0), runs).settings
    assert follows.weights.replay == str(runs / "small-learned-s1")
    assert follows.weights.replay_as == "permuted"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('references = ["joint"]', 'references = ["other"]', "'other' is no method"),
        ("[0, 1]", "[0, 0]", "a seed is there twice"),
        ("[0, 1]", "[]", "study.seeds"),
        ('method = "learned"', 'method = "nobody"', "no such method"),
        ("seed = 1 }", "seed = 7 }", "not one of study.seeds"),
        ("[settings.small]", '[settings."a/b"]', "a name of letters"),
        ("[methods.joint]", "[methods.joint]\nlearned = 1", "methods.joint.learned"),
    ],
)
def test_a_wrong_plan_says_what_is_wrong(tmp_path, old, new, said):
    with pytest.raises(HdkdError, match=said) as caught:
        read_plan(written(tmp_path, PLAN.replace(old, new)))
    assert caught.value.exit_code == 2


def test_a_wrong_setting_names_its_method(tmp_path):
    misspelt = PLAN.replace('"training.epochs" = 3', '"training.epoch" = 3')
    plan = read_plan(written(tmp_path, misspelt))
    with pytest.raises(HdkdError, match=r"small, learned: .*training\.epoch"):
        resolved(plan, Cell("small", "learned", 0), tmp_path)
