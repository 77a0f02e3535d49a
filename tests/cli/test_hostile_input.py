"""Whatever a file holds that hdkd reads: it is taken, or refused with the right exit code.

The inputs are made from the models themselves: a valid record, in which one value after another is
replaced by what its place is not made for.
"""

import json
import random
import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import tomlkit
import torch

from hdkd_cli import app
from hdkd_cli.errors import ScoresError
from hdkd_cli.files import read_tensors, sha256_file, write_tensors
from hdkd_cli.settings.keys import leaves
from hdkd_cli.settings.schema import Settings
from hdkd_cli.settings.values import show

ANY = pytest.CaptureFixture[str]
ODD = [
    None, True, "", "x", "\x1b[2J\n\u202e", -1, 0, 2**62, 10**30, 10**400, 1e300, -1e-300,
    [], {}, [[]], {"a": {}}, ["x"] * 3, [-1] * 4, [1e300, 0], "../../x", "a" * 10_000,
]  # fmt: skip
NESTED: Any = []
for _ in range(200):
    NESTED = [NESTED]


def places(record: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(record, dict | list):
        for key in record if isinstance(record, dict) else range(min(len(record), 2)):
            yield from places(record[key], (*path, key))


def mutants(record: Any, odd_values: int) -> Iterator[Any]:
    """Copies of ``record`` with one place gone, or holding something odd."""
    dice = random.Random(0)
    for path in places(record):
        for odd in [*dice.sample(ODD, odd_values), "gone"]:
            copy = deepcopy(record)
            place = copy
            for key in path[:-1]:
                place = place[key]
            if odd == "gone":
                del place[path[-1]]
            else:
                place[path[-1]] = odd
            yield copy
    yield from ([], 3, None, NESTED, {"schema": record.get("schema"), "x": NESTED})


def ends_well(arguments: list[str], capsys: ANY, codes: tuple[int, ...] = (0, 2, 3)) -> None:
    code = app.run(arguments)
    said = capsys.readouterr().err
    assert code in codes, (arguments, said[-2000:])
    assert "Traceback" not in said
    assert not set("\x1b\u202e") & set(said)
    assert code == 0 or "error: " in said
    assert len(said) < 20_000


def test_settings_of_a_file(tmp_path: Path, capsys: ANY) -> None:
    config, tried = tmp_path / "c.toml", 0
    dice = random.Random(0)
    for key in leaves(Settings()):
        section, _, name = key.partition(".")
        for odd in dice.sample([value for value in ODD if value is not None], 3):
            config.write_text(tomlkit.dumps({section: {name: odd}}))
            ends_well(["settings", "show", "--config", str(config)], capsys, (0, 2))
            tried += 1
    for content in (
        b"\xff\xfe", b"\x00", b"a = " + b"9" * 5000, b"a = " + b"[" * 2000, b"x" * (2 << 20),
        b"[data]\n" * 3, b"data = 1", b"schema = 3", b".".join([b"a"] * 3000) + b" = 1",
    ):  # fmt: skip
        config.write_bytes(content)
        ends_well(["settings", "show", "--config", str(config)], capsys, (2,))
        tried += 1
    assert tried >= 200


def test_settings_of_the_command_line(capsys: ANY) -> None:
    dice = random.Random(1)
    for key in leaves(Settings()):
        odd = dice.choice(ODD)
        ends_well(["settings", "show", "--set", f"{key}={show(odd)}"], capsys, (0, 2))
    for text in ("=", "a", "data", "data=", ".", "data.=1", "9" * 5000, f"data.name={'[' * 2000}"):
        ends_well(["settings", "show", "--set", text], capsys, (2,))


def test_policies(trained: Path, tmp_path: Path, capsys: ANY) -> None:
    scores = next((trained / "scores").glob("*.safetensors"))
    policy, tried = tmp_path / "p.json", 0
    valid = json.loads((trained / "policies" / "geometric.json").read_text())
    valid["points"] = valid["points"][:2]
    for record in mutants(valid, 3):
        policy.write_text(json.dumps(record))
        arguments = ["eval-budget", "--scores", str(scores), "--policy", str(policy)]
        ends_well(arguments, capsys)
        tried += 1
    assert tried >= 100


def test_what_a_run_says_of_itself(trained: Path, capsys: ANY) -> None:
    path, tried = trained / "run.json", 0
    valid = json.loads(path.read_text())
    for record in mutants({k: v for k, v in valid.items() if k != "versions"}, 1):
        path.write_text(json.dumps(record))
        ends_well(["eval-anytime", str(trained)], capsys)
        tried += 1
    assert tried >= 50


def test_manifests(trained: Path, capsys: ANY) -> None:
    path, tried = trained / "checkpoints" / "step-3" / "manifest.json", 0
    for record in mutants(json.loads(path.read_text()), 2):
        path.write_text(json.dumps(record))
        ends_well(["eval-anytime", str(trained)], capsys)
        tried += 1
    assert tried >= 30


def test_score_files(trained: Path, tmp_path: Path, capsys: ANY) -> None:
    kept = next((trained / "scores").glob("*.safetensors"))
    tensors, meta = read_tensors(kept, ScoresError)
    logits, labels, macs = (tensors[name] for name in ("logits", "labels", "macs"))
    file = tmp_path / "s.safetensors"
    for changes in (
        {"logits": torch.full_like(logits, 3e38)},
        {"logits": torch.full_like(logits, torch.nan)},
        {"logits": torch.zeros_like(logits)},
        {"logits": logits.int()},
        {"logits": logits[:, :1].clone(), "labels": labels[:1].clone()},
        {"logits": logits[:, :, :2].clone(), "labels": labels % 2},
        {"logits": logits[0].clone()},
        {"labels": labels + 5},
        {"labels": labels - 1},
        {"labels": labels.float()},
        {"macs": -macs},
        {"macs": macs.flip(0)},
        {"macs": torch.tensor([1, 2, 2**63 - 1])},
        {"macs": macs[:1].clone()},
    ):
        write_tensors(file, tensors | changes, meta | {"split": "val"})
        policy = str(trained / "policies" / "geometric.json")
        for verb in (
            ["eval-anytime"],
            ["calibrate", "--policy", "optimal", "-o", str(tmp_path / "p.json")],
            ["eval-budget", "--policy", policy],
        ):
            ends_well([*verb, "--scores", str(file)], capsys)


def test_how_far_training_was(trained: Path, capsys: ANY) -> None:
    checkpoint = trained / "checkpoints" / "step-3"
    state, manifest = checkpoint / "state.json", checkpoint / "manifest.json"
    shutil.rmtree(trained / "scores")
    for content in ("[]", "{", "9" * 5000, '{"step": -1, "metrics_bytes": 0}', "[" * 2000, "null"):
        state.write_text(content)
        record = json.loads(manifest.read_text())
        record["files"]["state.json"] = {
            "sha256": sha256_file(state),
            "bytes": state.stat().st_size,
        }
        manifest.write_text(json.dumps(record))
        arguments = ["train", "--resume", str(trained), "--set", "training.max_steps=4"]
        ends_well(arguments, capsys, (3,))


def test_logs(trained: Path, capsys: ANY) -> None:
    log, tried = trained / "metrics.jsonl", 0
    lines = log.read_text().splitlines()
    dice = random.Random(2)
    for number, line in enumerate(lines):
        for record in dice.sample(list(mutants(json.loads(line), 1)), 8):
            log.write_text("\n".join([*lines[:number], json.dumps(record), *lines[number + 1 :]]))
            ends_well(["report", str(trained), "--plain"], capsys)
            tried += 1
    assert tried >= 30
