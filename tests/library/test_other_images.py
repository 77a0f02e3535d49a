"""Labelled images that are no split of the run, and what each class comes to."""

import json
from pathlib import Path

import pytest
from picture_runs import Pictures, write_pictures

from hdkd_cli import app
from hdkd_cli.errors import DataError, UsageError
from hdkd_cli.evaluation.scores import read_scores, write_scores
from hdkd_cli.library.run import Run
from hdkd_cli.library.score_file import ScoreFile

ANY = pytest.CaptureFixture[str]


@pytest.fixture
def field(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "others", {"field": 5}, seed=7) / "field"


def test_the_images_of_test_in_another_place_give_the_same_numbers(pictures: Pictures) -> None:
    run = Run.open(pictures.run, device="cpu")
    theirs = run.anytime(images=pictures.data / "test")
    assert theirs.exits == run.anytime("test").exits
    assert (theirs.split, theirs.images) == ("images", str(pictures.data / "test"))
    policy = run.calibrate()
    record = run.evaluate(policy, images=pictures.data / "test")
    assert record.points == run.evaluate(policy).points
    assert record.split == "images"


def test_other_images_are_never_kept_as_a_split(pictures: Pictures, field: Path) -> None:
    run = Run.open(pictures.run, device="cpu")
    scores = run.scores(images=field)
    assert scores.num_samples == 10
    assert scores.meta["split"] == "images"
    assert scores.meta["images"] == str(field)
    assert not (pictures.run / "scores").exists()
    assert run.scores("test").num_samples == 16
    assert [path.stem for path in (pictures.run / "scores").iterdir()] == ["test"]
    with pytest.raises(UsageError, match="not both"):
        run.scores("test", images=field)
    with pytest.raises(DataError, match="no such folder"):
        run.scores(images=field / "nowhere")
    (field / "cat").rename(field / "cats")
    with pytest.raises(DataError, match="no class 'cats'"):
        run.anytime(images=field)


def test_the_verbs_take_them(pictures: Pictures, field: Path, tmp_path: Path, capsys: ANY) -> None:
    run, file = str(pictures.run), tmp_path / "field.safetensors"
    assert app.run(["calibrate", run]) == 0
    capsys.readouterr()
    for verb in ("eval-anytime", "eval-budget"):
        assert app.run([verb, run, "--images", str(field)]) == 0
        record = json.loads(capsys.readouterr().out)
        assert (record["split"], record["images"], record["samples"]) == ("images", str(field), 10)
    assert app.run(["scores", run, "--images", str(field), "-o", str(file)]) == 0
    assert read_scores(file).meta["images"] == str(field)
    assert app.run(["eval-budget", run, "--images", str(field), "--measured"]) == 2
    assert app.run(["eval-anytime", "--scores", str(file), "--images", str(field)]) == 2
    assert "give RUN" in capsys.readouterr().err


def test_bad_images_are_all_named_or_left_out(pictures: Pictures, field: Path, capsys: ANY) -> None:
    for name in ("cat", "狗"):
        (field / name / "bad.png").write_text("none")
    verb = ["eval-anytime", str(pictures.run), "--images", str(field)]
    assert app.run(verb) == 3
    said = capsys.readouterr().err
    assert "2 images cannot be read" in said
    assert "hint: mend or remove them; a run with data.skip_bad leaves them out" in said

    settings = pictures.run / "settings.toml"
    settings.write_text(settings.read_text().replace("skip_bad = false", "skip_bad = true"))
    assert app.run(verb) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["samples"] == 10
    assert f"{field}: 2 images that cannot be read are left out" in captured.err


def test_predictions_beside_the_true_classes(pictures: Pictures, field: Path, capsys: ANY) -> None:
    run = str(pictures.run)
    assert app.run(["predict", run, "--images", str(field)]) == 0
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [Path(line["image"]).parent.name for line in lines] == [line["truth"] for line in lines]
    assert [line["truth"] for line in lines] == ["cat"] * 5 + ["狗"] * 5
    right = sum(line["class"] == line["truth"] for line in lines)
    assert f"right about {right} of 10" in said.err
    anytime = Run.open(pictures.run, device="cpu").anytime(images=field)
    assert right == round(anytime.exits[-1].top1_pct / 10)  # without a policy: the last exit

    assert app.run(["predict", run, str(field), "--format", "jsonl"]) == 0
    unlabelled = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert unlabelled == [{k: v for k, v in line.items() if k != "truth"} for line in lines]
    for wrong in ([], [str(field), "--images", str(field)]):
        assert app.run(["predict", run, *wrong]) == 2
    assert app.run(["predict", run, "--images", str(pictures.data)]) == 3


def test_each_class(pictures: Pictures, tmp_path: Path, capsys: ANY) -> None:
    run = Run.open(pictures.run, device="cpu")
    record = run.anytime(by_class=True)
    assert [one.class_name for one in record.per_class] == ["cat", "狗"]
    assert [one.samples for one in record.per_class] == [8, 8]
    mean = sum(one.top1_pct[-1] or 0 for one in record.per_class) / 2
    assert mean == pytest.approx(record.exits[-1].top1_pct)

    assert app.run(["eval-anytime", str(run.path), "--per-class"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(record.as_record()))
    assert printed["per_class"][1]["class"] == "狗"
    assert sum(map(sum, printed["confusion"])) == 16
    assert app.run(["eval-anytime", str(run.path), "--per-class", "--format", "table"]) == 0
    table = capsys.readouterr().out
    assert "taken for" in table
    assert "confusion" not in table
    assert app.run(["eval-anytime", str(run.path)]) == 0
    assert not {"per_class", "confusion", "images"} & json.loads(capsys.readouterr().out).keys()

    write_scores(tmp_path / "s.safetensors", run.scores("test"))
    of_file = ScoreFile(path=tmp_path / "s.safetensors").anytime(by_class=True)
    assert [one.class_name for one in of_file.per_class] == ["0", "1"]
    assert of_file.confusion == record.confusion
