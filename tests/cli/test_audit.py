"""``hdkd predict --audit``: what a policy promises is held against what comes."""

import json
from pathlib import Path

import pytest
from PIL import Image

from hdkd_cli import app
from hdkd_cli.evaluation.policy import ExitPolicy, read_policy, write_policy
from hdkd_cli.library.run import Run

ANY = pytest.CaptureFixture[str]


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{i}.png" for i in range(8)]
    for i, path in enumerate(paths):
        Image.effect_noise((40, 36), 20 + 25 * i).convert("RGB").save(path)
    return [str(path) for path in paths]


def answers(capsys: ANY, *arguments: str, code: int = 0) -> tuple[list[dict], str]:
    assert app.run(["predict", *arguments]) == code
    captured = capsys.readouterr()
    return [json.loads(line) for line in captured.out.splitlines()], captured.err


def written(run: Path, **changes: object) -> ExitPolicy:
    """The run's policy with a point of other thresholds, in a file of its own."""
    policy = read_policy(run / "policies" / "geometric.json")
    policy = policy.only(policy.points[0].model_copy(update=changes))
    write_policy(run / "other.json", policy)
    return policy


@pytest.mark.parametrize("more", [[], ["--regroup", "--batch-size", "3"]])
def test_audited_images_say_what_the_last_exit_says(
    trained: Path, names: list[str], capsys: ANY, more: list[str]
) -> None:
    other = ["--policy", str(trained / "other.json")]
    written(trained, thresholds=(None, None))
    last, _ = answers(capsys, str(trained), *names, *other)
    written(trained, thresholds=(0.0, 0.0))
    plain, _ = answers(capsys, str(trained), *names, *other)
    audit = ["--audit", "1", "--max-risk", "0.9"]
    found, err = answers(capsys, str(trained), *names, *other, *audit, *more)
    assert [one["audit"]["label"] for one in found] == [one["label"] for one in last]
    for one, before in zip(found, plain, strict=True):
        assert one["audit"]["agrees"] == (one["audit"]["label"] == one["label"])
        assert one["audit"]["class"] == str(one["audit"]["label"])
        assert (one["label"], one["exit"]) == (before["label"], 1)
        assert "alarms" not in one
        assert "audit" not in before
    assert "8 of 8 images audited" in err


def test_a_slow_down_is_told_once_and_kept(
    trained: Path, names: list[str], tmp_path: Path, capsys: ANY
) -> None:
    """All images take the last exit, where half of its cost is promised."""
    half = Run.open(trained).costs.macs_K[-1] / 2
    policy = written(trained, thresholds=(None, None), val_macs=half)
    policy = policy.model_copy(
        update={"fitted_on": policy.fitted_on.model_copy(update={"samples": 5000})}
    )
    write_policy(trained / "other.json", policy)
    state = tmp_path / "state.json"
    command = [
        str(trained), *names, *names, *names, "--policy", str(trained / "other.json"),
        "--audit", "0.5", "--max-risk", "0.5", "--audit-state", str(state), "--fail-on-drift",
    ]  # fmt: skip
    found, err = answers(capsys, *command, "--batch-size", "4", code=5)
    assert len(found) == 24
    assert "alarms" not in found[0]
    assert found[-1]["alarms"] == ["cost"]
    assert err.count("drift (cost)") == 1
    assert "promise is broken (cost)" in err
    kept = json.loads(state.read_text())
    assert kept["schema"] == "hdkd/audit/1"
    assert (sum(kept["exits"]), kept["exits"][-1], kept["alarms"]) == (24, 24, ["cost"])
    found, err = answers(capsys, *command, code=5)
    assert found[0]["alarms"] == ["cost"]
    assert err.count("drift (cost)") == 1
    assert json.loads(state.read_text())["exits"] == [0, 0, 48]
    assert not answers(capsys, *(word for word in command if word != "--fail-on-drift"))[1].count(
        "broken"
    )
    write_policy(trained / "other.json", policy.only(policy.points[0].model_copy(
        update={"thresholds": (0.5, 0.5)})))  # fmt: skip
    assert "another policy" in answers(capsys, *command, code=3)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--audit", "0.02"], "promises nothing"),
        (["--audit", "2", "--max-risk", "0.1"], "--audit 2"),
        (["--fail-on-drift"], "about an audit"),
        (["--audit-state", "x.json"], "about an audit"),
        (["--audit", "0.02", "--max-risk", "1.5"], "--max-risk 1.5"),
    ],
)
def test_refusals(
    trained: Path, names: list[str], capsys: ANY, arguments: list[str], message: str
) -> None:
    found, err = answers(capsys, str(trained), *names, *arguments, code=2)
    assert message in err
    assert not found


def test_without_a_policy_there_is_nothing_to_watch(
    trained: Path, names: list[str], capsys: ANY
) -> None:
    (trained / "policies" / "last").unlink()
    arguments = ["--audit", "0.5", "--max-risk", "0.1"]
    assert "no policy" in answers(capsys, str(trained), *names, *arguments, code=2)[1]
