"""``calibrate-thresholds`` beyond the published family: wishes, guarantees, refusals."""

import json
from pathlib import Path

import pytest
from small_runs import SMALL

from hdkd_cli import app

ANY = pytest.CaptureFixture[str]


def piped(arguments: list[str], capsys: ANY) -> dict:
    assert app.run(arguments) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refused(arguments: list[str], capsys: ANY, code: int = 2) -> str:
    capsys.readouterr()
    assert app.run(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.fixture
def files(trained: Path, tmp_path: Path, capsys: ANY) -> dict[str, str]:
    """Score files of three splits; the reserve trained nothing."""
    paths = {split: str(tmp_path / f"{split}.safetensors") for split in ("val", "reserve", "test")}
    for split, path in paths.items():
        assert app.run(["scores", str(trained), "-o", path, "--split", split]) == 0
    capsys.readouterr()
    return paths


def test_optimal(trained: Path, capsys: ANY) -> None:
    family = piped(["calibrate", str(trained), "--policy", "optimal"], capsys)
    assert (family["kind"], family["combination"]["kind"]) == ("optimal", "cost-weighted")
    assert len(family["val_auroc"]) == 3
    assert family["guarantee"] is None
    assert json.loads((trained / "policies" / "optimal.json").read_text()) == family
    record = piped(["eval-budget", str(trained)], capsys)
    assert record["policy"] == "optimal"
    two = ["calibrate", str(trained), "--policy", "optimal", "--budget", "0.6", "--budget", "0.9"]
    policy = piped(two, capsys)
    assert len(policy["points"]) == 2
    assert all(p["val_macs"] <= p["target_macs"] for p in policy["points"])
    given = ["--policy", "optimal", "--combination", "single"]
    assert piped(["calibrate", str(trained), *given], capsys)["combination"]["kind"] == "single"


@pytest.mark.parametrize("policy", ["geometric", "optimal"])
def test_target_accuracy(trained: Path, capsys: ANY, policy: str) -> None:
    calibrate = ["calibrate", str(trained), "--policy", policy]
    family = piped(calibrate, capsys)["points"]
    best = max(point["val_top1_pct"] for point in family)
    points = piped([*calibrate, "--target-accuracy", str(best)], capsys)["points"]
    assert len(points) == 1
    assert points[0]["val_macs"] == min(
        point["val_macs"] for point in family if point["val_top1_pct"] >= best
    )
    message = refused([*calibrate, "--target-accuracy", "100"], capsys)
    assert f"has {best:.2f} % on val" in message


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (["--budget", "0.5", "--target-accuracy", "50"], "--budget and --target-accuracy"),
        (["--budget", "0.5", "--max-risk", "0.1"], "--budget and --max-risk"),
        (["--target-accuracy", "50", "--max-risk", "0.1"], "--target-accuracy and --max-risk"),
        (["--policy", "risk"], "give --max-risk E"),
        (["--policy", "risk", "--budget", "0.5"], "give --max-risk E"),
        (["--policy", "geometric", "--max-risk", "0.1"], "only --policy risk"),
        (["--policy", "optimal", "--delta", "0.1"], "give --max-risk too"),
        (["--guarantee", "crc"], "give --max-risk too"),
        (["--loss", "accuracy-gap"], "give --max-risk too"),
        (["--max-risk", "0"], "--max-risk 0: is not between 0 and 1"),
        (["--max-risk", "5"], "--max-risk 5: is not between 0 and 1"),
        (["--max-risk", "0.1", "--delta", "1"], "--delta 1: is not between 0 and 1"),
        (["--max-risk", "0.1", "--delta", "0"], "--delta 0: is not between 0 and 1"),
        (["--max-risk", "nan"], "--max-risk nan: is not between 0 and 1"),
        (["--max-risk", "0.1", "--guarantee", "crc", "--delta", "0.2"], "crc bounds the risk on"),
        (["--target-accuracy", "101"], "target-accuracy"),
        (["--policy", "magic"], "magic"),
    ],
)
def test_contradictions_are_2(trained: Path, capsys: ANY, wish: list[str], message: str) -> None:
    assert message in refused(["calibrate", str(trained), *wish], capsys)


def test_a_guarantee_from_files(files: dict[str, str], tmp_path: Path, capsys: ANY) -> None:
    calibrate = ["calibrate", "--scores", files["val"], "--max-risk", "0.3"]
    held_out = ["--calibration-scores", files["reserve"]]
    assert app.run([*calibrate, *held_out, "-o", str(tmp_path / "p.json")]) == 0
    captured = capsys.readouterr()
    policy = json.loads(captured.out)
    assert (policy["kind"], len(policy["points"])) == ("risk", 1)
    promise = policy["guarantee"]
    assert (promise["kind"], promise["loss"]) == ("ltt", "disagreement")
    assert (promise["epsilon"], promise["delta"]) == (0.3, 0.1)
    assert promise["statement"] in captured.err.replace("\n", " ")
    piped(["eval-budget", "--scores", files["test"], "--policy", str(tmp_path / "p.json")], capsys)
    strict = ["calibrate", "--scores", files["val"], "--max-risk", "0.0001", *held_out]
    assert app.run(strict) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["points"][0]["thresholds"] == [None, None]
    assert "take the last exit" in captured.err.replace("\n", " ")
    other = ["--guarantee", "crc", "--loss", "accuracy-gap"]
    promise = piped([*calibrate, *held_out, *other], capsys)["guarantee"]
    assert (promise["kind"], promise["loss"]) == ("crc", "accuracy-gap")
    assert promise["delta"] is None


def test_samples_that_trained_something_are_refused(
    trained: Path, files: dict[str, str], capsys: ANY
) -> None:
    calibrate = ["calibrate", "--scores", files["val"], "--max-risk", "0.3"]
    assert "--calibration-scores FILE" in refused(calibrate, capsys)
    message = refused([*calibrate, "--calibration-scores", files["val"]], capsys)
    assert "data.calibration_fraction" in message
    message = refused([*calibrate, "--calibration-scores", files["test"]], capsys)
    assert "test split" in message
    message = refused(["calibrate", str(trained), "--max-risk", "0.3"], capsys)
    assert "data.calibration_fraction" in message
    message = refused(
        ["calibrate", str(trained), "--max-risk", "0.3", "--calibration-scores", files["reserve"]],
        capsys,
    )
    assert "goes with --scores" in message
    missing = [*calibrate, "--calibration-scores", "nowhere.safetensors"]
    assert "no such file" in refused(missing, capsys, 3)


def test_a_run_that_set_images_aside(tmp_path: Path, capsys: ANY) -> None:
    aside = ["--set", "data.calibration_fraction=0.4", "--runs-dir", str(tmp_path), "--name", "r"]
    assert app.run(["train", *SMALL, *aside]) == 0
    capsys.readouterr()
    policy = piped(["calibrate", str(tmp_path / "r"), "--max-risk", "0.5"], capsys)
    assert policy["fitted_on"]["samples"] == 30
    assert policy["guarantee"]["n"] == 20
    assert policy["guarantee"]["epsilon"] == 0.5
    assert piped(["eval-budget", str(tmp_path / "r")], capsys)["policy"] == "risk"
    same = ["calibrate", str(tmp_path / "r"), "--max-risk", "0.5", "--split", "calibration"]
    assert "data.calibration_fraction" in refused(same, capsys)


def test_fitted_combination(trained: Path, files: dict[str, str], capsys: ANY) -> None:
    policy = piped(["calibrate", str(trained), "--combination", "fitted"], capsys)
    assert policy["combination"]["kind"] == "fitted"
    by_run = piped(["eval-anytime", str(trained), "--combination", "fitted"], capsys)
    assert by_run["split"] == "test"
    single = piped(["eval-anytime", str(trained)], capsys)
    assert by_run["exits"][0]["top1_pct"] == single["exits"][0]["top1_pct"]
    assert by_run["exits"][0]["nll"] != single["exits"][0]["nll"]
    fitted = ["--combination", "fitted"]
    message = refused(["eval-anytime", "--scores", files["test"], *fitted], capsys)
    assert "fitted on val" in message
    assert app.run(["eval-anytime", "--scores", files["val"], *fitted]) == 0
    assert "too favourable" in capsys.readouterr().err


def test_each_policy_has_a_confidence_of_its_own(trained: Path, capsys: ANY) -> None:
    found = {}
    for kind, more in (
        ("geometric", []),
        ("optimal", []),
        ("optimal", ["--confidence", "max-prob"]),
    ):
        assert app.run(["calibrate", str(trained), "--policy", kind, *more]) == 0
        policy = json.loads(capsys.readouterr().out)
        found[kind, *more[1:]] = policy["confidence"]
        assert len(policy["val_auroc_settled"]) == 3
    assert found == {
        ("geometric",): "max-prob",
        ("optimal",): "margin",
        ("optimal", "max-prob"): "max-prob",
    }


def test_budgets_of_time(trained: Path, tmp_path: Path, files: dict[str, str], capsys: ANY) -> None:
    run = str(trained)
    wish = ["calibrate", run, "--policy", "optimal", "--budget"]
    said = refused([*wish, "3ms"], capsys)
    assert "it was not profiled yet" in said
    assert f"run `hdkd profile {run}`" in said
    assert "--scores say nothing" in refused(
        ["calibrate", "--scores", files["val"], "--budget", "3ms"], capsys
    )
    profiled = piped(["profile", run, "--seconds", "1", "--batch-size", "4"], capsys)
    assert json.loads((trained / "profile.json").read_text()) == profiled
    # to the nanosecond, as policies keep times: a budget between two of those is met or it is not
    median = [round(row["latency_ms"]["median"], 6) for row in profiled["exits"]]
    taken = [max(median[: k + 1]) for k in range(3)]
    wanted = (taken[0] + taken[2]) / 2

    policy = piped([*wish, f"{wanted:.9f}ms"], capsys)
    assert policy["times"]["seconds"] == pytest.approx([ms / 1000 for ms in taken], abs=1e-9)
    assert policy["times"]["device"] == profiled["device"]
    assert policy["times"]["source"].endswith("profile.json")
    (point,) = policy["points"]
    assert point["target_macs"] is None
    assert point["target_seconds"] == pytest.approx(wanted / 1000)
    assert point["val_seconds"] <= point["target_seconds"] + 1e-12
    (row,) = piped(["eval-budget", run], capsys)["points"]
    assert row["expected_seconds"] == pytest.approx(
        sum(s * ms / 1000 for s, ms in zip(row["exit_share"], taken, strict=True)), abs=1e-9
    )

    file = tmp_path / "elsewhere.json"
    profiled["device"] = "a telephone"
    file.write_text(json.dumps(profiled))
    family = piped(["calibrate", "--scores", files["val"], "--latency", str(file)], capsys)
    assert family["times"]["device"] == "a telephone"
    assert len(family["points"]) == 39
    batched = piped([*wish[:-1], "--latency", str(file), "--batched"], capsys)
    assert batched["times"]["batch"] == 4

    profiled["exits"][1]["macs"] += 1
    file.write_text(json.dumps(profiled))
    foreign = refused([*wish, "3ms", "--latency", str(file)], capsys, 3)
    assert f"{file}: is the profile of another network" in foreign
    assert "no such file" in refused([*wish, "3ms", "--latency", "gone.json"], capsys, 3).lower()
    assert f"{files['val']}: " in refused([*wish, "3ms", "--latency", files["val"]], capsys, 3)


def test_times_and_other_wishes(trained: Path, capsys: ANY) -> None:
    run = ["calibrate", str(trained)]
    assert "all budgets as times" in refused([*run, "--budget", "3ms", "--budget", "0.5"], capsys)
    assert "all budgets as times" in refused([*run, "--budget", "1", "--latency", "x"], capsys)
    assert "is about times" in refused([*run, "--budget", "1", "--batched"], capsys)
    wishes = [*run, "--max-risk", "0.1", "--latency", "x"]
    assert "--latency: a guarantee" in refused(wishes, capsys)
    plain = piped([*run, "--policy", "optimal"], capsys)
    assert plain["times"] is None
    said = refused(["predict", run[1], "a.png", "--budget", "3ms"], capsys)
    assert "calibrated for multiply-accumulates" in said
