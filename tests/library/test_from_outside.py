"""A confidence and a policy that no file of the package knows."""

from pathlib import Path

import numpy as np
import pytest
from picture_runs import Pictures

import hdkd_cli
from hdkd_cli.errors import ExportError, PolicyError, SettingsError
from hdkd_cli.evaluation.confidence import CONFIDENCES, confidence
from hdkd_cli.evaluation.policy import parse_policy, read_policy


def sigmoid_gap(logits_BC: np.ndarray) -> np.ndarray:
    second_B, first_B = np.sort(logits_BC)[:, -2:].T
    return np.tanh((first_B - second_B) / 2)


def first_or_last(table, budgets_macs):
    """Half of the images leave at the first exit, the others at the last."""
    middle = np.float32(np.median(table.confidence_KN[0]))
    return np.array([[middle, *[np.inf] * (table.num_exits - 2)]], np.float32)


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    hdkd_cli.register_confidence("sigmoid-gap", sigmoid_gap)
    hdkd_cli.register_policy("first-or-last", first_or_last, combination="mean")


def test_they_are_calibrated_evaluated_and_really_used(pictures: Pictures) -> None:
    run = hdkd_cli.Run.open(pictures.run, device="cpu")
    fitted = run.calibrate("first-or-last", confidence="sigmoid-gap")
    assert (fitted.kind, fitted.confidence) == ("first-or-last", "sigmoid-gap")
    assert fitted.combination.kind == "mean"
    assert read_policy(pictures.run / "policies" / "first-or-last.json") == fitted
    (point,) = run.evaluate("first-or-last").points
    assert point.exit_share[1] == 0
    predictions = hdkd_cli.load(pictures.run).predict(
        sorted((pictures.data / "test").rglob("*.png"))
    )
    shares = [sum(p.exit == k for p in predictions) / 16 for k in (1, 2, 3)]
    assert shares == pytest.approx(point.exit_share)
    assert all(0 <= p.confidence <= 1 for p in predictions)


def test_an_export_cannot_carry_a_confidence_along(pictures: Pictures, tmp_path: Path) -> None:
    run = hdkd_cli.Run.open(pictures.run, device="cpu")
    run.calibrate(confidence="sigmoid-gap")
    with pytest.raises(ExportError, match="sigmoid-gap"):
        run.export("pt2", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["sigmoid-gap", "margin", "Not A Name", ""])
def test_names_are_taken_once(name: str) -> None:
    with pytest.raises(ValueError, match="confidence"):
        hdkd_cli.register_confidence(name, sigmoid_gap)
    assert set(CONFIDENCES) == {"max-prob", "entropy", "margin", "sigmoid-gap"}


def test_unknown_kinds_are_refused(pictures: Pictures) -> None:
    run = hdkd_cli.Run.open(pictures.run, device="cpu")
    with pytest.raises(SettingsError, match="no such kind"):
        run.calibrate("nearest")
    with pytest.raises(PolicyError, match="no such kind"):
        run.calibrate(confidence="feeling")
    with pytest.raises(PolicyError, match="no such kind"):
        confidence(np.zeros((1, 2), np.float32), "feeling")
    text = run.calibrate().model_dump_json()
    for known in ("max-prob", "geometric"):
        unknown = text.replace(f'"{known}"', '"feeling"', 1)
        unknown = unknown.replace("{", '{"schema": "hdkd/policy/1", ', 1)
        with pytest.raises(PolicyError, match="Input should be one of"):
            parse_policy(unknown, "here")
