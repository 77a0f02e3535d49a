"""The runner reads files that anybody may have written: each is in order or named in one line."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdkd_cli.inference import exported_files, exported_network

FILES = ("manifest.json", "policy.json", "labels.json")
ODD = [None, True, "x", -5, 1e300, float("nan"), 10**400, [], {}, [[0]], {"a": []}]


def places(record: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a record holds something, the record itself included."""
    yield path
    if isinstance(record, dict | list):
        for key in record if isinstance(record, dict) else range(len(record)):
            yield from places(record[key], (*path, key))


def replaced(record: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = deepcopy(record)
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


def removed(record: Any, path: tuple[Any, ...]) -> Any:
    copy = deepcopy(record)
    place = copy
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return copy


@pytest.fixture
def folder(onnx_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(onnx_folder, tmp_path / "export"))


def refused(folder: Path) -> str | None:
    """Why the folder cannot be used; None: it can, and classifies."""
    try:
        network = exported_network.Network(folder, threads=1)
        exited = network.classify(np.zeros((2, 3, 20, 20), np.float32))
        network.record(Path("x"), int(exited.label_B[0]), int(exited.exit_B[0]), 0.5)
    except exported_files.Unusable as problem:
        return str(problem)
    return None


def test_no_change_of_any_value_is_more_than_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = exported_network.open_onnx
    sessions: dict[str, exported_files.Program] = {}

    def once(path: Path, threads: int | None) -> exported_files.Program:
        if path.name not in sessions:  # opening takes most of the time
            sessions[path.name] = opened(path, threads)
        return sessions[path.name]

    monkeypatch.setattr(exported_network, "open_onnx", once)
    tried = 0
    for name in FILES:
        path = folder / name
        text = path.read_text()
        record = json.loads(text)
        for place in places(record):
            if place[:1] == ("files",) and place[1:2] > (1,):
                continue  # one entry is like another
            changed = [replaced(record, place, odd) for odd in ODD]
            for content in changed if not place else [removed(record, place), *changed]:
                path.write_text(json.dumps(content))
                why = refused(folder)
                assert why is None or name in why or "stage" in why, (place, why)
                assert why is None or "\n" not in why, (place, why)
                tried += 1
        path.write_text(text)
    assert refused(folder) is None
    assert tried >= 500


HOSTILE: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "threshold below": ("policy.json", lambda p: threshold(p, -5), "points.0.thresholds"),
    "threshold above": ("policy.json", lambda p: threshold(p, 1.5), "points.0.thresholds"),
    "threshold text": ("policy.json", lambda p: threshold(p, "0.5"), "points.0.thresholds"),
    "threshold nan": ("policy.json", lambda p: threshold(p, float("nan")), "points.0.thresholds"),
    "few temperatures": ("policy.json", lambda p: p | {"temperatures": [1.0]}, "temperatures: 3"),
    "zero temperature": ("policy.json", lambda p: p | {"temperatures": [1, 0, 1]}, "temperatures"),
    "tiny temperature": (
        "policy.json", lambda p: p | {"temperatures": [1, 1e-300, 1]}, "temperatures",
    ),
    "huge temperature": (
        "policy.json", lambda p: p | {"temperatures": [1, 1e300, 1]}, "temperatures",
    ),
    "no point": ("policy.json", lambda p: p | {"points": []}, "incomplete"),
    "later exits": (
        "policy.json",
        lambda p: p | {"combination": {"weights": [[0, 1, 0], [0, 1, 0], [0, 0, 1]]}},
        "row 1 is no average",
    ),
    "few rows": ("policy.json", lambda p: p | {"combination": {"weights": [[1]]}}, "3 rows"),
    "other schema": ("policy.json", lambda p: p | {"schema": "x"}, "not of schema"),
    "a list": ("policy.json", lambda p: [p], "not of schema"),
    "one label": ("labels.json", lambda n: n[:1], "two or more class names"),
    "labels of numbers": ("labels.json", lambda n: [1] * len(n), "class names"),
    "labels by name": ("labels.json", lambda n: dict.fromkeys(n, 1), "class names"),
    "other target": ("manifest.json", lambda m: m | {"to": "exe"}, "neither onnx nor pt2"),
    "no stages": ("manifest.json", lambda m: m | {"programs": []}, "no list of stages"),
    "other stages": (
        "manifest.json", lambda m: m | {"programs": [{"file": "../x"}]}, "no plain file name",
    ),
    "unlisted": ("manifest.json", lambda m: m | {"files": []}, "says nothing of stage1.onnx"),
    "macs shrink": ("manifest.json", lambda m: m | {"macs": m["macs"][::-1]}, "growing costs"),
    "few macs": ("manifest.json", lambda m: m | {"macs": m["macs"][1:]}, "growing costs"),
    "huge crop": ("manifest.json", lambda m: transform(m, crop=10**9), "transform.crop"),
    "no resize": ("manifest.json", lambda m: transform(m, resize=0), "transform.resize"),
    "zero std": ("manifest.json", lambda m: transform(m, std=[1, 0, 1]), "transform.std"),
    "one mean": ("manifest.json", lambda m: transform(m, mean=[0]), "transform.mean"),
    "odd kind": ("manifest.json", lambda m: transform(m, interpolation="x"), "interpolation"),
}  # fmt: skip


def threshold(policy: Any, value: object) -> Any:
    return replaced(policy, ("points", 0, "thresholds", 0), value)


def transform(manifest: Any, **changes: object) -> Any:
    return manifest | {"transform": manifest["transform"] | changes}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_would_give_wrong_answers_is_refused(folder: Path, case: str) -> None:
    name, change, message = HOSTILE[case]
    path = folder / name
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    why = refused(folder)
    assert why is not None
    assert why.startswith(f"{path}: ")
    assert message in why


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "not JSON"),
        (b"9" * 5000, "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b" " * (exported_files.MAX_BYTES + 1), "larger than 16 MiB"),
    ],
)
@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_records(folder: Path, name: str, content: bytes, message: str) -> None:
    (folder / name).write_bytes(content)
    assert message in (refused(folder) or "")


def test_too_few_names_are_told_when_one_is_missing(folder: Path) -> None:
    network = exported_network.Network(folder, threads=1)
    network.classes = network.classes[:2]
    with pytest.raises(exported_files.Unusable, match="has 2 names, none for class 7"):
        network.record(Path("x"), 7, 0, 0.5)


def test_a_program_that_is_none(folder: Path) -> None:
    (folder / "stage2.onnx").write_bytes(b"no program")
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for entry in manifest["files"]:
        if entry["name"] == "stage2.onnx":
            entry["sha256"] = hashlib.sha256(b"no program").hexdigest()
    path.write_text(json.dumps(manifest))
    assert "stage2.onnx: is no ONNX program" in (refused(folder) or "")
