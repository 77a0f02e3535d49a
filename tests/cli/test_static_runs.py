"""The rival without early exits goes through every verb."""

import json
from pathlib import Path

import pytest
from small_runs import SMALL

from hdkd_cli import app

ANY = pytest.CaptureFixture[str]
CUT = [*SMALL, "--set", "model.base=2"]  # with 1, cutting at exit 3 costs less than at exit 2


def test_a_network_cut_short_is_trained_and_evaluated(tmp_path: Path, capsys: ANY) -> None:
    for cut_at in (2, 3):
        name = f"static{cut_at}"
        static = ["--set", "method=static", "--set", f"model.cut_at={cut_at}"]
        words = ["train", *CUT, *static, "--runs-dir", str(tmp_path), "--name", name]
        assert app.run(words) == 0
    capsys.readouterr()
    macs = []
    for name in ("static2", "static3"):
        assert app.run(["eval-anytime", str(tmp_path / name)]) == 0
        (entry,) = json.loads(capsys.readouterr().out)["exits"]
        macs.append(entry["macs"])
    assert macs[0] < macs[1]
    run = str(tmp_path / "static2")
    for verb in (["calibrate", run], ["eval-budget", run]):
        assert app.run(verb) == 0
        points = json.loads(capsys.readouterr().out)["points"]
        assert all(point["thresholds"] == [] for point in points)
        assert points
    exits = ["train", *CUT, "--runs-dir", str(tmp_path), "--name", "exits"]
    assert app.run(exits) == 0
    capsys.readouterr()
    assert app.run(["compare", str(tmp_path / "exits"), run, str(tmp_path / "static3")]) == 0
    found = json.loads(capsys.readouterr().out)["differences"]
    assert [(one["other"], one["budget_macs"]) for one in found] == [
        ("static2", macs[0]),
        ("static3", macs[1]),
    ]
    assert app.run(["profile", run, "--seconds", "1", "--batch-size", "4"]) == 0
    assert app.run(["report", run, str(tmp_path / "static3"), "-o", str(tmp_path / "r.html")]) == 0
    assert app.run(["train", *CUT, "--set", "method=static", "--set", "model.cut_at=4",
                    "--runs-dir", str(tmp_path)]) == 2  # fmt: skip
    assert "model.cut_at = 4: the network has 3 exits" in capsys.readouterr().err
