"""Policies: a strict round trip, and a clear refusal of everything else."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hdkd_cli.errors import BudgetError, PolicyError
from hdkd_cli.evaluation.policy import (
    Combination,
    ExitPolicy,
    FittedOn,
    Guarantee,
    OperatingPoint,
    parse_policy,
    read_policy,
    write_policy,
)

finite = {"allow_nan": False, "allow_infinity": False}
fractions = st.floats(0, 1)
positive = st.floats(1e-300, **finite)
hashes = st.none() | st.text("0123456789abcdef", min_size=64, max_size=64)


@st.composite
def rows_of_weights(draw, num_exits):
    rows = []
    for k in range(num_exits):
        raw = draw(st.lists(st.floats(0.01, 1), min_size=k + 1, max_size=k + 1))
        rows.append(tuple(w / sum(raw) for w in raw) + (0.0,) * (num_exits - 1 - k))
    return tuple(rows)


inside = st.floats(0, 1, exclude_min=True, exclude_max=True)
guarantees = st.builds(
    Guarantee,
    kind=st.sampled_from(["ltt", "crc"]),
    loss=st.sampled_from(["disagreement", "accuracy-gap"]),
    epsilon=inside,
    delta=st.none() | inside,
    n=st.integers(1, 10**9),
    statement=st.text(max_size=20),
)


@st.composite
def policies(draw):
    num_exits = draw(st.integers(1, 5))
    point = st.builds(
        OperatingPoint,
        target_macs=st.none() | positive,
        thresholds=st.tuples(*[st.none() | fractions] * (num_exits - 1)),
        val_macs=positive,
        val_top1_pct=st.floats(0, 100),
    )
    kind = draw(st.sampled_from(["geometric", "optimal", "risk"]))
    return ExitPolicy(
        kind=kind,
        confidence=draw(st.sampled_from(["max-prob", "entropy", "margin"])),
        combination=Combination(
            kind=draw(st.sampled_from(["single", "mean", "cost-weighted", "fitted"])),
            weights=draw(rows_of_weights(num_exits)),
        ),
        temperatures=draw(st.tuples(*[st.floats(1e-6, 1e6)] * num_exits)),
        points=tuple(draw(st.lists(point, min_size=1, max_size=4))),
        fitted_on=FittedOn(
            checkpoint_sha256=draw(hashes),
            split=draw(st.none() | st.text(max_size=12)),
            split_sha256=draw(hashes),
            samples=draw(st.integers(1, 10**9)),
        ),
        val_auroc=draw(st.none() | st.tuples(*[st.none() | fractions] * num_exits)),
        guarantee=draw(guarantees) if kind == "risk" else None,
    )


@given(policies())
@settings(deadline=None, max_examples=50)
def test_round_trip_to_the_last_bit(policy):
    text = json.dumps(policy.as_record(), allow_nan=False)
    assert parse_policy(text, "here") == policy


def policy_record():
    """A policy of three exits and two points as JSON holds it."""
    point = {"target_macs": None, "thresholds": [0.75, None], "val_macs": 5.0, "val_top1_pct": 60.0}
    return {
        "schema": "hdkd/policy/1",
        "kind": "geometric",
        "confidence": "max-prob",
        "combination": {"kind": "single", "weights": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]},
        "temperatures": [1, 1.5, 1],
        "points": [point, point | {"val_macs": 4.0}],
        "fitted_on": {"checkpoint_sha256": None, "split": "val", "samples": 10},
    }


PROMISE = {
    "kind": "ltt", "loss": "disagreement", "epsilon": 0.1, "delta": 0.1, "n": 9, "statement": "So.",
}  # fmt: skip


def changed(path, value):
    """The JSON text of `policy_record` with one place replaced."""
    record = policy_record()
    *parents, last = path
    place = record
    for key in parents:
        place = place[key]
    place[last] = value
    return json.dumps(record)


def test_a_file_round_trip(tmp_path):
    policy = parse_policy(json.dumps(policy_record()), "here")
    write_policy(tmp_path / "p.json", policy)
    assert read_policy(tmp_path / "p.json") == policy
    record = json.loads((tmp_path / "p.json").read_text())
    assert record["schema"] == "hdkd/policy/1"
    assert record["points"][0]["thresholds"] == [0.75, None]
    added = {"val_auroc", "val_auroc_settled", "guarantee", "times"}
    assert record.keys() == policy_record().keys() | added


def test_fields_of_the_future_are_ignored():
    record = policy_record() | {"colour": "blue"}
    assert parse_policy(json.dumps(record), "here") == parse_policy(
        json.dumps(policy_record()), "here"
    )


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["schema"], "hdkd/policy/2", "is schema 'hdkd/policy/2'"),
        (["schema"], None, "without a schema"),
        (["kind"], "magic", "kind: Input should be one of .*geometric"),
        (["kind"], "risk", "a policy of kind risk has a guarantee, and no other has one"),
        (["guarantee"], PROMISE, "a policy of kind risk has a guarantee, and no other has one"),
        (["guarantee"], PROMISE | {"epsilon": 0.0}, "guarantee.epsilon: .*greater than 0"),
        (["val_auroc"], [0.5, 1.1, None], "val_auroc.1: .*less than or equal"),
        (["val_auroc"], [0.5], "1 values of AUROC, 3 exits need 3"),
        (["val_auroc_settled"], [0.5], "1 values of AUROC, 3 exits need 3"),
        (["confidence"], "luck", "confidence: Input should be"),
        (["points", 1, "thresholds"], [0.5], "point 2 has 1 thresholds, 3 exits need 2"),
        (["points", 1, "thresholds"], [0.5, 0.5, 0.5], "point 2 has 3 thresholds"),
        (["points", 0, "thresholds"], [1e8, 0.5], "points.0.thresholds.0: .*less than or equal"),
        (["points", 0, "thresholds"], [0.5, -1e8], "points.0.thresholds.1: .*greater than or"),
        (["points", 0, "thresholds"], [math.nan, 0.5], "NaN is no number in JSON"),
        (["points", 0, "thresholds"], [math.inf, 0.5], "Infinity is no number"),
        (["points", 0, "thresholds"], ["0.5", 0.5], "points.0.thresholds.0: .*valid number"),
        (["points", 0, "val_macs"], 0, "points.0.val_macs: .*greater than 0"),
        (["points", 0, "val_top1_pct"], 101, "points.0.val_top1_pct: .*less than"),
        (["points"], [], "points: .*at least 1"),
        (["temperatures"], [1, 1], "2 temperatures but 3 rows"),
        (["temperatures"], [], "temperatures: .*at least 1"),
        (["temperatures", 1], 0, "temperatures.1: .*greater than or equal to 0.000001"),
        (["temperatures", 1], 1e-300, "temperatures.1: .*greater than or equal to 0.000001"),
        (["temperatures", 1], 1e300, "temperatures.1: .*less than or equal to 1000000"),
        (["temperatures", 1], 10**400, "holds a number of more than 63 bits"),
        (["temperatures", 1], math.nan, "NaN is no number in JSON"),
        (["combination", "weights", 1], [0.5, 0.6, 0], "row 2 sums to 1.1, not 1"),
        (["combination", "weights", 1], [0.5, 0.5], "row 2 has 2 weights, 3 are needed"),
        (["combination", "weights", 1], [0, 0.5, 0.5], "row 2 weighs an exit that comes later"),
        (["combination", "weights", 1], [1.5, -0.5, 0], "combination.weights.1.0: .*less than"),
        (["fitted_on", "samples"], 0, "fitted_on.samples: .*greater than 0"),
    ],
)
def test_refusals_say_where(path, value, message):
    with pytest.raises(PolicyError, match=message) as raised:
        parse_policy(changed(path, value), "stdin")
    assert str(raised.value).startswith("stdin: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", sorted(policy_record().keys() - {"schema"}))
def test_every_field_is_needed(key):
    record = policy_record()
    del record[key]
    with pytest.raises(PolicyError, match=f"{key}: Field required"):
        parse_policy(json.dumps(record), "stdin")


@pytest.mark.parametrize("text", ["", "{", "runs/x", "\x00", "1" * 5000])
def test_not_json(text):
    with pytest.raises(PolicyError, match="stdin: is not JSON"):
        parse_policy(text, "stdin")


@pytest.mark.parametrize("text", ["[]", "3", "null", '"hdkd/policy/1"', "{}"])
def test_json_but_no_policy(text):
    with pytest.raises(PolicyError, match=r"JSON without a schema, .* is needed"):
        parse_policy(text, "stdin")


@pytest.mark.parametrize("depth", [100, 100_000])
def test_deep_json(depth):
    with pytest.raises(PolicyError, match="stdin: is nested more than 32 deep"):
        parse_policy("[" * depth + "]" * depth, "stdin")


def test_unreadable_files(tmp_path):
    with pytest.raises(PolicyError, match="no such file"):
        read_policy(tmp_path / "none.json")
    with pytest.raises(PolicyError, match="is a folder"):
        read_policy(tmp_path)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError, match="not a text file"):
        read_policy(tmp_path / "binary.json")


def test_a_policy_does_not_change():
    policy = parse_policy(json.dumps(policy_record()), "here")
    with pytest.raises(ValidationError, match="frozen"):
        policy.points = ()


@st.composite
def families(draw):
    cost = st.integers(1, 6).map(float)
    accuracy = st.integers(0, 4).map(float)
    point = st.builds(
        OperatingPoint,
        target_macs=st.none(),
        thresholds=st.just((0.5, 0.5)),
        val_macs=cost,
        val_top1_pct=accuracy,
    )
    points = tuple(draw(st.lists(point, min_size=1, max_size=8)))
    whole = parse_policy(json.dumps(policy_record()), "here")
    return whole.model_copy(update={"points": points})


@given(families(), st.none() | st.integers(1, 6))
@settings(deadline=None)
def test_one_point_of_a_family(policy, budget):
    affordable = [p for p in policy.points if budget is None or p.val_macs <= budget]
    if not affordable:
        cheapest = min(p.val_macs for p in policy.points)
        with pytest.raises(BudgetError, match=f"needs {cheapest:,.0f}"):
            policy.select(budget)
        return
    chosen = policy.select(budget)
    assert chosen in affordable
    for point in affordable:
        assert point.val_top1_pct <= chosen.val_top1_pct
        assert point.val_top1_pct < chosen.val_top1_pct or point.val_macs >= chosen.val_macs


@given(families(), st.integers(0, 4))
@settings(deadline=None)
def test_the_cheapest_point_that_is_accurate_enough(policy, top1_pct):
    good = [p for p in policy.points if p.val_top1_pct >= top1_pct]
    if not good:
        best = policy.select()
        with pytest.raises(
            BudgetError, match=f"has {best.val_top1_pct:.2f} % on val, at"
        ) as raised:
            policy.cheapest(top1_pct)
        assert f"{best.val_macs:,.0f} MACs" in str(raised.value)
        return
    chosen = policy.cheapest(top1_pct)
    assert chosen in good
    for point in good:
        assert point.val_macs >= chosen.val_macs
        assert point.val_macs > chosen.val_macs or point.val_top1_pct <= chosen.val_top1_pct
