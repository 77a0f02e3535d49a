# K exits, B batch, C classes, T terms
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from hdkd_cli.method import Terms, cross_entropies, forward_mode
from hdkd_cli.method.terms import Annealing, taught_pairs

K, B, C = 4, 6, 5
TEACHERS = ("none", "last", "later")


def example(dtype=torch.float64, num_exits=K, classes=C, scale=2.0):
    generator = torch.Generator().manual_seed(7)
    logits = scale * torch.randn(num_exits, B, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (B,), generator=generator)
    return logits.to(dtype), labels


def one_by_one(logits_KBC, labels_B, teachers, temperature):
    """Name → loss, pair by pair with torch's own functions."""
    losses = {f"ce[{k + 1}]": F.cross_entropy(z, labels_B) for k, z in enumerate(logits_KBC)}
    exits = len(logits_KBC)
    for i in range(exits - 1):
        for j in {"none": (), "last": (exits - 1,), "later": range(i + 1, exits)}[teachers]:
            log_q = F.log_softmax(logits_KBC[i] / temperature, dim=1)
            target = F.softmax(logits_KBC[j].detach() / temperature, dim=1)
            divergence = F.kl_div(log_q, target, reduction="batchmean")
            losses[f"kd[{j + 1}->{i + 1}]"] = temperature**2 * divergence
    return losses


@pytest.mark.parametrize("num_exits", [1, 2, K])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("teachers", TEACHERS)
def test_terms_and_their_gradients_equal_torch_pair_by_pair(teachers, temperature, num_exits):
    logits, labels = example(num_exits=num_exits)
    terms = Terms(num_exits, teachers, temperature)
    logits.requires_grad_()
    expected = one_by_one(logits, labels, teachers, temperature)
    actual_T = terms(logits, labels)

    assert terms.names == tuple(expected)
    torch.testing.assert_close(actual_T, torch.stack(list(expected.values())))
    for actual, loss in zip(actual_T, expected.values(), strict=True):
        (of_actual,) = torch.autograd.grad(actual, logits, retain_graph=True)
        (of_loss,) = torch.autograd.grad(loss, logits, retain_graph=True)
        torch.testing.assert_close(of_actual, of_loss, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("num_exits", "count"), [(5, 15), (7, 28), (11, 66)])
def test_every_exit_learns_from_all_later_exits(num_exits, count):
    assert len(Terms(num_exits, "later", 3.0).names) == count


def test_names_are_ordered_by_student_then_teacher():
    assert Terms(3, "later", 3.0).names == (
        "ce[1]", "ce[2]", "ce[3]", "kd[2->1]", "kd[3->1]", "kd[3->2]",
    )  # fmt: skip
    assert Terms(3, "last", 3.0).names == ("ce[1]", "ce[2]", "ce[3]", "kd[3->1]", "kd[3->2]")
    assert taught_pairs(3, "last") == ((0, 2), (1, 2))


@pytest.mark.parametrize("teachers", TEACHERS)
def test_tangents_equal_the_closed_forms(teachers):
    temperature = 3.0
    logits, labels = example()
    tangent = torch.randn(K, B, C, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    terms = Terms(K, teachers, temperature)
    with forward_mode():
        dual = terms(forward_ad.make_dual(logits, tangent), labels)
        actual_T = forward_ad.unpack_dual(dual).tangent

    p, q = logits.softmax(2), (logits / temperature).softmax(2)
    onehot = F.one_hot(labels, C)
    expected = [((p[k] - onehot) * tangent[k]).sum(1).mean() for k in range(K)]
    # only the student's tangent appears: the teacher is detached in forward mode as well
    expected += [
        temperature * ((q[i] - q[j]) * tangent[i]).sum(1).mean()
        for i, j in taught_pairs(K, teachers)
    ]
    torch.testing.assert_close(actual_T, torch.stack(expected), rtol=1e-12, atol=1e-14)


def test_half_precision_logits_and_autocast_give_float32_terms():
    logits, labels = example(torch.bfloat16)
    terms = Terms(K, "later", 3.0)
    expected_T = terms(logits.float(), labels)
    with torch.autocast("cpu", torch.bfloat16):
        actual_T = terms(logits, labels)
    assert actual_T.dtype == torch.float32
    assert torch.equal(actual_T, expected_T)
    assert cross_entropies(logits, labels).dtype == torch.float32


def test_float32_keeps_small_divergences_of_many_classes():
    """self − cross cancels: exits that nearly agree on 1000 classes are the hard case."""
    first, labels = example(num_exits=1, classes=1000)
    noise = torch.randn(3, B, 1000, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    logits = torch.cat([first, first + 0.1 * noise])
    terms = Terms(4, "later", 3.0)
    actual_T, exact_T = terms(logits.float(), labels).double(), terms(logits, labels)
    assert exact_T[4:].max() < 0.02
    torch.testing.assert_close(actual_T, exact_T, rtol=1e-3, atol=1e-5)


def test_confident_wrong_exits_stay_finite():
    logits, labels = example(torch.float32, scale=1e4)
    logits.requires_grad_()
    terms_T = Terms(K, "later", 1.0)(logits, labels)
    (gradient,) = torch.autograd.grad(terms_T.sum(), logits)
    assert terms_T.isfinite().all()
    assert gradient.isfinite().all()


def test_an_ensemble_teaches_every_exit():
    """Against torch's own divergence, exit by exit."""
    logits_KBC, labels_B = torch.randn(3, 5, 7, dtype=torch.float64), torch.zeros(5).long()
    terms = Terms(3, "ensemble", 2.0)
    assert terms.names[3:] == ("kd[all->1]", "kd[all->2]", "kd[all->3]")
    teacher_BC = (logits_KBC / 2).softmax(-1).mean(0)
    expected = [
        4 * F.kl_div((logits_BC / 2).log_softmax(-1), teacher_BC, reduction="batchmean")
        for logits_BC in logits_KBC
    ]
    torch.testing.assert_close(terms(logits_KBC, labels_B)[3:], torch.stack(expected))


def test_an_ensemble_is_no_pupil_of_its_exits():
    logits_KBC = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    Terms(2, "ensemble", 1.0)(logits_KBC, torch.zeros(3).long())[2].backward()
    assert logits_KBC.grad[0].any()
    assert not logits_KBC.grad[1].any()  # the second exit teaches the first, and hears nothing


def test_the_temperature_rises_while_the_last_exit_is_sure():
    """T by hand, as Phuong & Lampert's loop moves it after each batch."""
    annealing = Annealing(torch.tensor(1.0), growth=1.05, until=0.5)
    terms = Terms(2, "last", 3.0, annealing=annealing)
    by_hand = 1.0
    for step in range(60):
        logits_KBC = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(step)) * 3
        labels_B = torch.zeros(8).long()
        same = Terms(2, "last", by_hand)(logits_KBC, labels_B)
        torch.testing.assert_close(terms(logits_KBC, labels_B), same, rtol=1e-4, atol=1e-6)
        sure = (logits_KBC[-1] / by_hand).softmax(1).amax(1).mean()
        annealing.step(annealing.sureness(logits_KBC))
        by_hand *= 1.05 if sure > 0.5 else 1.0
        assert float(annealing.temperature) == pytest.approx(by_hand, rel=1e-5)
    assert by_hand > 1.5
