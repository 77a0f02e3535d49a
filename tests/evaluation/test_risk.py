"""Risk control: exact probabilities, a known true risk, and a naive threshold that breaks it."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_tables import exit_tables

from hdkd_cli.evaluation.policies.risk import binomial_cdf, last_safe, losses, promise, safe_to_fast
from hdkd_cli.evaluation.simulate import simulate
from hdkd_cli.evaluation.table import ExitTable


def made(kind="ltt", loss="disagreement", epsilon=0.1, delta=0.1, n=100):
    return promise(kind, loss, epsilon=epsilon, delta=delta, n=n)


@pytest.mark.parametrize("n", [1, 2, 7, 40])
@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.99])
def test_binomial_distribution(n, p):
    q = Fraction(p)
    mass = [math.comb(n, m) * q**m * (1 - q) ** (n - m) for m in range(n + 1)]
    expected = [float(x) for x in itertools.accumulate(mass)]
    np.testing.assert_allclose(binomial_cdf(n, p), expected, rtol=1e-12)


def test_binomial_distribution_of_many():
    """Median and symmetry where factorials overflow."""
    cdf = binomial_cdf(50_001, 0.5)
    assert cdf[25_000] == pytest.approx(0.5, abs=1e-9)
    assert cdf[-1] == pytest.approx(1, abs=1e-9)
    assert cdf[24_000] == pytest.approx(1 - cdf[26_000], abs=1e-9)


@given(exit_tables(), st.sampled_from(["disagreement", "accuracy-gap"]))
@settings(deadline=None, max_examples=40)
def test_losses_one_by_one(table, kind):
    family_PK = safe_to_fast(table)
    exit_PN = simulate(table, family_PK).exit_PN
    found_PN = losses(table, family_PK, kind)
    for p, i in itertools.product(range(0, len(family_PK), 37), range(table.num_samples)):
        early, last = table.prediction_KN[exit_PN[p, i], i], table.prediction_KN[-1, i]
        label = table.labels_N[i]
        expected = (
            int(early != last)
            if kind == "disagreement"
            else int(early != label) - int(last != label)
        )
        assert found_PN[p, i] == expected


@given(exit_tables())
@settings(deadline=None, max_examples=40)
def test_the_family_begins_safe_and_ends_fast(table):
    count_PK = simulate(table, safe_to_fast(table)).count_PK
    assert count_PK[0].tolist() == [0] * (table.num_exits - 1) + [table.num_samples]
    assert count_PK[-1].tolist() == [table.num_samples] + [0] * (table.num_exits - 1)


def columns(*totals, n=100):
    """A loss table whose points lose on the first 0, 1, .. samples."""
    return np.array([[1] * m + [0] * (n - m) for m in totals], np.int8)


def test_binary_losses_pass_up_to_the_binomial_quantile():
    """n = 100, ε = 0.1, δ = 0.1: P(Bin ≤ 5) = 0.0576, P(Bin ≤ 6) = 0.1172."""
    assert last_safe(columns(0, 5), made()) == 1
    assert last_safe(columns(0, 6), made()) == 0


def test_the_first_rejection_ends_the_sequence():
    assert last_safe(columns(0, 1, 50, 2, 3), made()) == 1
    assert last_safe(columns(0, 50, 1, 2), made()) == 0
    assert last_safe(columns(0, 1, 2, 3), made()) == 3


def false_acceptance(loss, epsilon, n, probabilities):
    """P(the second of two points is taken), over all samples of n losses −1, 0, 1."""
    promised = made(loss=loss, epsilon=epsilon, delta=0.1, n=n)
    total = 0.0
    for fewer, more in itertools.product(range(n + 1), repeat=2):
        if fewer + more > n:
            continue
        loss_N = [-1] * fewer + [1] * more + [0] * (n - fewer - more)
        if last_safe(np.array([[0] * n, loss_N], np.int8), promised):
            ways = math.comb(n, fewer) * math.comb(n - fewer, more)
            a, b, c = probabilities
            total += ways * a**fewer * c**more * b ** (n - fewer - more)
    return total


@pytest.mark.parametrize("epsilon", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("fewer", [0.0, 0.05, 0.2])
def test_ltt_errs_with_probability_delta_at_most(epsilon, fewer):
    """Exactly, where the true risk is a hair above ε."""
    more = epsilon + fewer + 1e-9
    exact = false_acceptance("accuracy-gap", epsilon, 24, (fewer, 1 - fewer - more, more))
    assert exact <= 0.1
    binary = false_acceptance("disagreement", epsilon, 24, (0, 1 - epsilon - 1e-9, epsilon + 1e-9))
    assert binary <= 0.1


def hoeffding_bentkus(mean, n, epsilon):
    """The p-value of a mean loss in [0, 1], as the paper writes it."""

    def h1(a, b):
        return (a * math.log(a / b) if a else 0) + (1 - a) * math.log((1 - a) / (1 - b))

    count = math.ceil(n * mean - 1e-9)
    tail = sum(math.comb(n, m) * epsilon**m * (1 - epsilon) ** (n - m) for m in range(count + 1))
    return min(math.e * tail, math.exp(-n * h1(min(mean, epsilon), epsilon)))


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.01, 0.9), st.floats(0.01, 0.5))
@settings(deadline=None)
def test_gaps_pass_if_either_p_value_does(fewer, more, epsilon, delta):
    n = 120
    loss_N = [-1] * fewer + [1] * more + [0] * (n - fewer - more)
    clamped = sum(math.comb(n, m) * epsilon**m * (1 - epsilon) ** (n - m) for m in range(more + 1))
    whole = hoeffding_bentkus((more - fewer + n) / (2 * n), n, (1 + epsilon) / 2)
    p_value = 2 * min(clamped, whole)
    if abs(p_value - delta) > 1e-9:
        loss_PN = np.array([[0] * n, loss_N], np.int8)
        promised = made(loss="accuracy-gap", epsilon=epsilon, delta=delta, n=n)
        assert last_safe(loss_PN, promised) == int(p_value <= delta)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 8), st.floats(0.05, 0.95))
@settings(deadline=None)
def test_crc_by_its_definition(seed, n, points, epsilon):
    loss_PN = np.random.default_rng(seed).integers(-1, 2, (points, n)).astype(np.int8)
    loss_PN[0] = 0
    taken = 0
    for p in range(1, points):
        monotone = [max(0, *(int(loss_PN[q, i]) for q in range(p + 1))) for i in range(n)]
        if sum(monotone) / n > ((n + 1) * epsilon - 1) / n:
            break
        taken = p
    assert last_safe(loss_PN, made("crc", "accuracy-gap", epsilon, n=n)) == taken


POPULATION = 20_000


@pytest.fixture(scope="module")
def population():
    """Losses of a whole population at every point of a family fixed on other samples."""
    random = np.random.default_rng(0)

    def table(num_samples):
        sure_KN = random.random((3, num_samples))
        right_KN = random.random((3, num_samples)) < 0.5 + sure_KN / 2
        right_KN[-1] = True
        return ExitTable(
            sure_KN.astype(np.float32),
            right_KN.astype(np.int64),
            np.ones(num_samples, np.int64),
            (1, 2, 3),
        )

    family_PK = safe_to_fast(table(2000))
    return losses(table(POPULATION), family_PK, "disagreement")


def risks_of(choose, loss_PN, draws=300, n=400):
    random = np.random.default_rng(1)
    risk_P = loss_PN.mean(axis=1)
    samples = (random.integers(0, POPULATION, n) for _ in range(draws))
    return np.array([risk_P[choose(loss_PN[:, drawn])] for drawn in samples])


def naive(loss_PN):
    return int(np.flatnonzero(loss_PN.mean(axis=1) <= 0.1)[-1])


def test_promises_are_kept_and_the_naive_one_is_not(population):
    ltt = risks_of(lambda loss_PN: last_safe(loss_PN, made("ltt")), population)
    crc = risks_of(lambda loss_PN: last_safe(loss_PN, made("crc")), population)
    plug_in = risks_of(naive, population)
    noise = 3 * math.sqrt(0.1 * 0.9 / len(ltt))
    assert (ltt > 0.1).mean() <= 0.1 + noise
    assert crc.mean() <= 0.1 + 3 * crc.std() / math.sqrt(len(crc))
    assert (plug_in > 0.1).mean() > 0.1 + noise
    # and they are not kept by never leaving early
    assert ltt.mean() > 0.06
    assert crc.mean() > ltt.mean()


def test_too_few_samples_promise_nothing_early():
    for kind in ("ltt", "crc"):
        assert last_safe(np.zeros((5, 3), np.int8), made(kind, epsilon=0.01, n=3)) == 0


def test_promises_in_words():
    ltt = made("ltt", epsilon=0.05, delta=0.1, n=500)
    assert ltt.statement == (
        "With probability at least 90 % over the draw of the 500 calibration samples, at most 5 % "
        "of images drawn like them get another answer than the last exit's."
    )
    crc = made("crc", "accuracy-gap", epsilon=0.02, n=50)
    assert crc.delta is None
    assert crc.statement == (
        "On average over draws of 50 calibration samples, leaving early costs at most 2 points of "
        "accuracy against the last exit, on images drawn like them."
    )
