"""A run opened for use: kept scores first, images only where they are needed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from picture_runs import Pictures, write_pictures

from hdkd_cli import app
from hdkd_cli.errors import DataError, PolicyError, UsageError
from hdkd_cli.evaluation.policy import read_policy
from hdkd_cli.evaluation.scores import read_scores, write_scores
from hdkd_cli.library.run import Run
from hdkd_cli.library.score_file import ScoreFile

ANY = pytest.CaptureFixture[str]


def test_a_run_without_its_images(pictures: Pictures, capsys: ANY) -> None:
    """Scores that were kept serve calibration, both evaluations, compare and the report."""
    run, data = str(pictures.run), pictures.data
    twin = shutil.copytree(pictures.run, pictures.run.with_name("twin"), symlinks=True)
    verbs = (
        ["calibrate", run],
        ["calibrate", run, "--max-risk", "0.3"],
        ["eval-anytime", run],
        ["eval-budget", run, "--policy", "geometric"],
        ["scores", run, "-o", f"{run}.safetensors"],
        ["compare", run, str(twin)],
        ["report", run, "--plain"],
    )
    there = []
    for verb in verbs:
        assert app.run(verb) == 0, capsys.readouterr().err
        there.append(capsys.readouterr().out)
    shutil.move(data, data.with_name("elsewhere"))
    for verb, before in zip(verbs[:-1], there, strict=False):
        assert app.run(verb) == 0, capsys.readouterr().err
        assert capsys.readouterr().out == before
    assert app.run(verbs[-1]) == 0

    assert app.run(["eval-anytime", run, "--split", "reserve"]) == 3
    assert str(data) in capsys.readouterr().err
    # elsewhere, they are found
    assert app.run(["eval-anytime", run, "--data-dir", str(data.with_name("elsewhere"))]) == 0


def test_kept_scores_are_those_of_this_checkpoint_and_these_splits(pictures: Pictures) -> None:
    run = Run.open(pictures.run, device="cpu")
    first = run.scores("test")
    path = pictures.run / "scores" / "test.safetensors"
    for name in ("checkpoint_sha256", "split_sha256", "transform"):
        kept = read_scores(path)
        wrong = {**kept.meta, name: "0" * 64}
        write_scores(path, type(kept)(kept.logits_KNC + 1, kept.labels_N, kept.macs_K, meta=wrong))
        assert np.array_equal(Run.open(pictures.run, device="cpu").scores("test").logits_KNC,
                           first.logits_KNC)  # fmt: skip


def test_a_folder_that_is_named_is_looked_at(pictures: Pictures, tmp_path: Path) -> None:
    """Other images under --data-dir never get the scores of the run's own."""
    Run.open(pictures.run).scores("test")
    others = write_pictures(tmp_path / "others", {"train": 20, "test": 9}, seed=1)
    with pytest.raises(DataError, match="not those of"):
        Run.open(pictures.run, data_dir=others).scores("test")
    with pytest.raises(DataError):
        Run.open(pictures.run, data_dir=tmp_path / "nowhere").scores("test")


def test_policies_by_name_file_and_value(pictures: Pictures, tmp_path: Path) -> None:
    run = Run.open(pictures.run)
    with pytest.raises(UsageError, match="no policy"):
        run.policy()
    fitted = run.calibrate("optimal", budgets=[0.8, "1"])
    assert run.policy() == run.policy("optimal") == run.policy(fitted) == fitted
    assert run.calibrate(output=tmp_path / "p.json") == read_policy(tmp_path / "p.json")
    assert run.policy(tmp_path / "p.json").kind == "geometric"
    assert run.policy().kind == "optimal"  # a file is no policy of the run
    with pytest.raises(PolicyError, match="no such file or policy"):
        run.policy("risk")


def test_a_policy_of_another_checkpoint_is_refused_or_told(pictures: Pictures) -> None:
    fitted = Run.open(pictures.run).calibrate()
    fitted_on = fitted.fitted_on.model_copy(update={"checkpoint_sha256": "0" * 64})
    foreign = fitted.model_copy(update={"fitted_on": fitted_on})
    with pytest.raises(PolicyError):
        Run.open(pictures.run).policy(foreign)
    said: list[str] = []
    Run.open(pictures.run, allow_mismatch=True, warn=said.append).policy(foreign)
    assert "another" in said[0] or "checkpoint" in said[0]
    with pytest.warns(UserWarning, match="checkpoint"):
        Run.open(pictures.run, allow_mismatch=True).evaluate(foreign)


def test_verbs_and_library_say_the_same(pictures: Pictures, capsys: ANY) -> None:
    run = Run.open(pictures.run)
    for verb, record in (
        (["calibrate", str(run.path), "--policy", "optimal"], run.calibrate("optimal")),
        (["eval-anytime", str(run.path)], run.anytime()),
        (["eval-budget", str(run.path), "--split", "val"], None),
    ):
        assert app.run(verb) == 0
        printed = json.loads(capsys.readouterr().out)
        if record is not None:
            assert printed == record.as_record()


def test_a_score_file_needs_its_policies_and_calibration_scores(
    pictures: Pictures, tmp_path: Path
) -> None:
    run = Run.open(pictures.run)
    paths = {}
    for split in ("val", "calibration", "test"):
        paths[split] = tmp_path / f"{split}.safetensors"
        write_scores(paths[split], run.scores(split))
    val, test = ScoreFile(path=paths["val"]), ScoreFile(path=paths["test"])
    policy = val.calibrate("optimal", output=tmp_path / "p.json")
    assert test.evaluate(tmp_path / "p.json").points == run.evaluate(policy).points
    assert test.anytime().exits == run.anytime().exits
    with pytest.raises(UsageError, match="--policy FILE"):
        test.evaluate()
    with pytest.raises(UsageError, match="--calibration-scores"):
        val.calibrate(max_risk=0.3)
    with pytest.warns(UserWarning, match="6 calibration samples"):
        held_out = val.calibrate(max_risk=0.3, calibration_scores=paths["calibration"])
    said: list[str] = []
    of_run = Run.open(pictures.run, warn=said.append).calibrate(max_risk=0.3)
    assert held_out.guarantee == of_run.guarantee
    assert "6 calibration samples" in said[0]
    with pytest.raises(UsageError, match="RUN, not --scores"):
        test.evaluate(policy, measured=True)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"budgets": ["0.5"], "target_accuracy": 50.0}, "give one of them"),
        ({"kind": "risk"}, "give --max-risk"),
        ({"kind": "optimal", "max_risk": 0.1}, "guarantees one"),
        ({"delta": 0.1}, "about a guarantee"),
        ({"max_risk": 1.5}, "between 0 and 1"),
        ({"split": "test"}, "evaluation only"),
        ({"kind": "magic"}, "no such kind"),
    ],
)
def test_wishes_that_contradict_each_other(
    pictures: Pictures, wish: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Run.open(pictures.run).calibrate(**wish)
