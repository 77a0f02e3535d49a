# K exits, T terms
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hdkd_cli.method import HarmonizedWeights, Terms

INITS = ("balanced", "halved", "last", "supervision", "random", "uniform")
PARAMETRISATIONS = ("exp", "grouped", "softmax")


def make(num_exits=4, teachers="later", **changes):
    options = {
        "init": "balanced",
        "parametrisation": "exp",
        "supervision_sum": None,
        "distillation_sum": None,
        "tilt": 0.0,
        "dbt_share": 0.5,
        "learned": True,
        "seed": 0,
    }
    return HarmonizedWeights(Terms(num_exits, teachers, 3.0), **(options | changes))


def test_balanced_gives_each_student_one_averaged_teacher():
    expected = [1, 1, 1, 1, 1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2, 1]
    torch.testing.assert_close(make()(), torch.tensor(expected))
    torch.testing.assert_close(make(teachers="last")(), torch.ones(7))
    torch.testing.assert_close(make(teachers="none")(), torch.ones(4))


def test_last_gives_the_other_teachers_a_hundredth():
    weights_T = make(init="last", num_exits=3)()  # kd[2->1], kd[3->1], kd[3->2]
    unit = 2 / 2.01
    torch.testing.assert_close(weights_T, torch.tensor([1, 1, 1, 0.01 * unit, unit, unit]))


@pytest.mark.parametrize(("init", "part"), [("halved", 0.5), ("supervision", 0.1)])
def test_a_part_of_the_distillation_is_kept(init, part):
    weights_T, balanced_T = make(init=init)(), make()()
    torch.testing.assert_close(weights_T[:4], balanced_T[:4])
    torch.testing.assert_close(weights_T[4:], part * balanced_T[4:])
    given_T = make(init=init, distillation_sum=2.0)()
    torch.testing.assert_close(given_T[4:], balanced_T[4:] * 2 / 3)


def test_random_is_the_same_for_a_seed_on_every_machine():
    weights_T = make(init="random", num_exits=3, seed=3)()
    recorded = [1.23717, 0.73995, 1.02288]  # 3 / sum times the first draws of random.Random(3)
    torch.testing.assert_close(weights_T[:3], torch.tensor(recorded), atol=2e-5, rtol=0)
    assert torch.equal(make(init="random", num_exits=3, seed=3)(), weights_T)
    assert not torch.equal(make(init="random", num_exits=3, seed=4)(), weights_T)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
@pytest.mark.parametrize("teachers", ["none", "last", "later"])
def test_uniform_is_exactly_one(parametrisation, teachers):
    weights_T = make(init="uniform", teachers=teachers, parametrisation=parametrisation)()
    assert torch.equal(weights_T, torch.ones_like(weights_T))


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_dbt_has_the_weights_of_its_authors_code(parametrisation, share):
    """There, all labels share 1 − C, distillation has C, and everything is times 2 · 5 / K."""
    weights_T = make(
        init="dbt",
        teachers="last",
        num_exits=3,
        dbt_share=share,
        learned=False,
        parametrisation=parametrisation,
    )()
    expected_T = 10 / 3 * torch.tensor([1 - share] * 3 + [share] * 2)
    torch.testing.assert_close(weights_T, expected_T)


def test_dbt_of_five_exits_weighs_everything_with_one():
    torch.testing.assert_close(make(5, init="dbt", teachers="last")(), torch.ones(9))


def test_labels_weigh_what_they_are_given_and_tilt_towards_late_exits():
    weights_T = make(supervision_sum=6.0, tilt=0.5)()
    labels_K = weights_T[:4]
    torch.testing.assert_close(labels_K.sum(), torch.tensor(6.0))
    torch.testing.assert_close(labels_K[3] / labels_K[0], torch.tensor(1.0).exp())
    ratios = labels_K[1:] / labels_K[:-1]
    torch.testing.assert_close(ratios, ratios[0].expand(3))
    torch.testing.assert_close(weights_T[4:], make()()[4:])


@pytest.mark.parametrize("init", INITS)
def test_sums_of_the_groups(init):
    weights_T = make(init=init)()
    if init != "uniform":
        distillation = {"supervision": 0.3, "halved": 1.5}.get(init, 3.0)
        torch.testing.assert_close(weights_T[:4].sum(), torch.tensor(4.0))
        torch.testing.assert_close(weights_T[4:].sum(), torch.tensor(distillation))
        if init not in ("supervision", "halved"):
            other_T = make(init=init, distillation_sum=1.5)()
            torch.testing.assert_close(other_T[4:], weights_T[4:] / 2)


@settings(max_examples=80, deadline=None)
@given(
    num_exits=st.integers(1, 7),
    teachers=st.sampled_from(["none", "last", "later"]),
    init=st.sampled_from(INITS),
    parametrisation=st.sampled_from(PARAMETRISATIONS),
    spread=st.floats(0, 8),
    seed=st.integers(0, 2**31),
)
def test_weights_stay_positive_and_keep_their_sums(
    num_exits, teachers, init, parametrisation, spread, seed
):
    weights = make(
        num_exits, teachers, init=init, parametrisation=parametrisation, seed=seed
    )  # fmt: skip
    before_T = weights()
    noise = torch.randn(len(before_T), generator=torch.Generator().manual_seed(seed))
    weights.raw_T += spread * noise
    after_T = weights()
    assert (before_T > 0).all()
    assert (after_T > 0).all()
    if parametrisation == "exp":
        torch.testing.assert_close(after_T, before_T * (spread * noise).exp())
    if parametrisation == "grouped":
        for group in (slice(0, num_exits), slice(num_exits, None)):
            torch.testing.assert_close(after_T[group].sum(), before_T[group].sum())
    if parametrisation == "softmax":
        torch.testing.assert_close(after_T.sum(), before_T.sum())


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_the_learned_vector_is_the_log_or_softmax_argument_counted_from_its_start(parametrisation):
    """γ as docs/concepts/method.md, section 2, writes it, from a = a_init + raw."""
    weights = make(parametrisation=parametrisation)
    weights.raw_T += torch.linspace(-2, 3, len(weights.raw_T))
    a = weights.initial_T.log() + weights.raw_T
    expected = {
        "exp": a.exp(),
        "grouped": torch.cat([4 * a[:4].softmax(0), 3 * a[4:].softmax(0)]),
        "softmax": 7 * a.softmax(0),
    }
    torch.testing.assert_close(weights(), expected[parametrisation])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "dbt"}, "teachers 'last'"),
        ({"init": "dbt", "teachers": "last", "distillation_sum": 1.0}, "does not apply"),
        ({"init": "uniform", "tilt": 0.1}, "tilt does not apply"),
        ({"init": "uniform", "supervision_sum": 1.0}, "supervision_sum does not apply"),
        ({"init": "uniform", "distillation_sum": 1.0}, "does not apply"),
        ({"init": "dbt", "teachers": "last", "dbt_share": 0.0}, "dbt_share"),
        ({"init": "dbt", "teachers": "last", "dbt_share": 1.0}, "dbt_share"),
        ({"distillation_sum": 0.0}, "distillation_sum"),
    ],
)
def test_impossible_starts_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_fixed_weights_may_be_zero():
    assert torch.equal(make(distillation_sum=0.0, learned=False)()[4:], torch.zeros(6))


def test_state_round_trip():
    weights = make(init="random", seed=5, parametrisation="grouped")
    weights.raw_T += 0.3
    weights.raw_T[0] -= 1
    other = make(init="random", seed=6, parametrisation="grouped")
    other.load_state_dict({name: t.clone() for name, t in weights.state_dict().items()})
    assert torch.equal(other(), weights())
    assert other().dtype == torch.float32
