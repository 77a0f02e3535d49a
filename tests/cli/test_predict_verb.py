"""``hdkd predict``: files, folders, stdin, bad images."""

import json
import os
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from hdkd_cli import app
from hdkd_cli.inference import runtime

ANY = pytest.CaptureFixture[str]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "b").mkdir(parents=True)
    for i, name in enumerate(["b/2.png", "a.png", "b/1.png", "c.bmp", "d.png"]):
        Image.effect_noise((40, 36), 30 + 20 * i).convert("RGB").save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_folder_in_order(trained: Path, pictures: Path, capsys: ANY) -> None:
    assert app.run(["predict", str(trained), str(pictures), "--batch-size", "2"]) == 0
    captured = capsys.readouterr()
    records = lines(captured.out)
    names = ["a.png", "b/1.png", "b/2.png", "c.bmp", "d.png"]
    assert [r["image"] for r in records] == [str(pictures / name) for name in names]
    assert "5 images" in captured.err
    assert "images/s" in captured.err
    for record in records:
        assert record["schema"] == "hdkd/prediction/1"
        assert record["class"] == str(record["label"])
        assert 1 <= record["exit"] <= 3
        assert 0 < record["confidence"] <= 1
    for more in (["--batch-size", "1"], ["--regroup", "--batch-size", "2"], ["--regroup"]):
        assert app.run(["predict", str(trained), str(pictures), *more]) == 0
        again = lines(capsys.readouterr().out)
        assert [(r["image"], r["label"], r["exit"]) for r in again] == [
            (r["image"], r["label"], r["exit"]) for r in records
        ]


def test_every_runtime_says_the_same(
    trained: Path, pictures: Path, capsys: ANY, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    there = sorted(trained.rglob("*"))

    def predicted(*more: str) -> tuple[list[tuple], str]:
        assert app.run(["predict", str(trained), str(pictures), "--batch-size", "2", *more]) == 0
        out, err = capsys.readouterr()
        return [(r["image"], r["label"], r["exit"]) for r in lines(out)], err

    wanted, said = predicted("--runtime", "torch")
    assert "runtime" not in said
    assert predicted("--runtime", "onnx")[0] == wanted
    few, said = predicted()
    assert few == wanted
    assert "runtime" not in said
    monkeypatch.setattr(runtime, "TRIAL_AFTER", 0)
    found, said = predicted()
    assert found == wanted
    assert said.count("runtime from here on") == 1
    assert "times as fast as" in said
    assert sorted(trained.rglob("*")) == there


def test_a_runtime_that_is_not_there(
    trained: Path, pictures: Path, capsys: ANY, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda _: None)
    assert app.run(["predict", str(trained), str(pictures), "--runtime", "onnx"]) == 2
    assert "onnx needs onnx, onnxruntime: pip install" in capsys.readouterr().err


def test_bad_images_are_counted(trained: Path, pictures: Path, capsys: ANY) -> None:
    bad = pictures / "bad.png"
    bad.write_bytes(b"nothing")
    arguments = ["predict", str(trained), str(pictures / "a.png"), str(bad), "gone.png"]
    assert app.run(arguments) == 3
    captured = capsys.readouterr()
    assert len(lines(captured.out)) == 1
    assert f"{bad}: not a readable image" in captured.err
    assert "gone.png: no such file" in captured.err
    assert "2 of 3 images" in captured.err
    assert app.run([*arguments, "--skip-bad"]) == 0


def test_stdin_that_pauses(
    trained: Path, pictures: Path, capsys: ANY, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits comes out after a second, while the pipe is still open."""
    reader, writer = os.pipe()
    stdin = os.fdopen(reader)
    monkeypatch.setattr("sys.stdin", stdin)
    written: list[str] = []
    monkeypatch.setattr("sys.stdout.write", lambda text: written.append(text) or len(text))

    def speak() -> None:
        os.write(writer, f"{pictures / 'a.png'}\n{pictures / 'd.png'}\n".encode())
        deadline = time.monotonic() + 60
        while len(written) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        before_the_end.append(len(written))
        os.write(writer, f"{pictures / 'c.bmp'}\n".encode())
        os.close(writer)

    before_the_end: list[int] = []
    speaker = threading.Thread(target=speak)
    speaker.start()
    assert app.run(["predict", str(trained), "-", "--regroup"]) == 0
    speaker.join()
    stdin.close()
    assert before_the_end == [2]
    assert len(lines("".join(written))) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-", "-"], 2, "only one"),
        (["RUN", "-", "a.png"], 2, "no others"),
        (["RUN", "EMPTY"], 3, "no images"),
        (["RUN", "PICTURES", "--budget", "0.0001"], 2, "budget"),
        (["RUN", "PICTURES", "--policy", "none"], 3, "no such file or policy"),
    ],
)
def test_refusals(
    trained: Path, pictures: Path, tmp_path: Path, capsys: ANY,
    arguments: list[str], code: int, message: str,
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    places = {"RUN": trained, "PICTURES": pictures, "EMPTY": tmp_path / "empty"}
    assert app.run(["predict", *(str(places.get(a, a)) for a in arguments)]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_no_policy_and_another_checkpoint(trained: Path, pictures: Path, capsys: ANY) -> None:
    path = trained / "policies" / "geometric.json"
    policy = json.loads(path.read_text())
    policy["fitted_on"]["checkpoint_sha256"] = "0" * 64
    path.write_text(json.dumps(policy))
    assert app.run(["predict", str(trained), str(pictures)]) == 3
    assert "--allow-mismatch" in capsys.readouterr().err
    assert app.run(["predict", str(trained), str(pictures), "--allow-mismatch"]) == 0
    assert "warning" in capsys.readouterr().err
    (trained / "policies" / "last").unlink()
    assert app.run(["predict", str(trained), str(pictures), "--budget", "0.5"]) == 2
    assert "calibrate-thresholds" in capsys.readouterr().err


def test_without_a_policy_the_last_exit_answers(trained: Path, pictures: Path, capsys: ANY) -> None:
    (trained / "policies" / "last").unlink()
    assert app.run(["predict", str(trained), str(pictures)]) == 0
    captured = capsys.readouterr()
    assert {record["exit"] for record in lines(captured.out)} == {3}
    assert captured.err.count("last exit") == 1


@pytest.mark.parametrize("more", [[], ["--regroup", "--batch-size", "2"]])
def test_most_probable_classes(trained: Path, pictures: Path, capsys: ANY, more: list[str]) -> None:
    assert app.run(["predict", str(trained), str(pictures), "--top", "3", *more]) == 0
    for record in lines(capsys.readouterr().out):
        first, second, third = record["top"]
        assert (first["label"], first["class"]) == (record["label"], record["class"])
        assert first["probability"] == pytest.approx(record["confidence"])  # max-prob
        assert first["probability"] >= second["probability"] >= third["probability"] > 0
    assert app.run(["predict", str(trained), str(pictures), "--top", "99", *more]) == 0
    for record in lines(capsys.readouterr().out):
        assert sum(one["probability"] for one in record["top"]) == pytest.approx(1)
        assert len(record["top"]) == 10
