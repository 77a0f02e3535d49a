"""The files of an export: read whole, found in order, opened as programs.

K exits, B images of a batch, C classes.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from hdkd_cli.evaluation.measures import MEASURES
from hdkd_cli.evaluation.watch import STATE_SCHEMA
from hdkd_cli.wording import first_line

SCHEMA = "hdkd/exported/1"
POLICY_SCHEMA = "hdkd/policy/1"
MAX_BYTES = 16 << 20  # of a JSON file
MAX_SIDE = 1 << 14
CONFIDENCES = tuple(MEASURES)

Array = NDArray[Any]
Program = Callable[[Sequence[Array]], list[Array]]
"""The state's tensors, batch first → logits (B, C), then the tensors of the next state."""


class Unusable(Exception):
    """A file cannot be used; the message says which and why."""


def read_json(path: Path, check: Callable[[Any], object]) -> Any:
    """What a JSON file says, once ``check`` has found it in order."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise Unusable(f"{path}: is larger than {MAX_BYTES >> 20} MiB")
        record = json.loads(content.decode())
    except OSError as problem:
        raise Unusable(f"{path}: {problem.strerror}") from None
    except RecursionError:
        raise Unusable(f"{path}: is nested too deeply") from None
    except ValueError as problem:
        raise Unusable(f"{path}: is not JSON ({problem})") from None
    try:
        check(record)
    except Unusable as problem:
        raise Unusable(f"{path}: {problem}") from None
    except (KeyError, TypeError, IndexError, AttributeError):
        raise Unusable(f"{path}: is incomplete, or holds what is not expected there") from None
    return record


def check_manifest(manifest: Any) -> None:
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise Unusable(f"is not of schema {SCHEMA}")
    need(manifest["to"] in ("onnx", "pt2"), "to: is neither onnx nor pt2")
    programs, macs, files = manifest["programs"], manifest["macs"], manifest["files"]
    whole = manifest.setdefault("single_file", False)  # folders of earlier versions are stages
    need(isinstance(whole, bool), "single_file: is neither true nor false")
    need(isinstance(programs, list) and programs, "programs: is no list of stages")
    named = {entry["name"]: entry["sha256"] for entry in files}
    for entry in programs:
        name = entry["file"]
        need(isinstance(name, str) and Path(name).name == name, "programs: no plain file name")
        need(isinstance(named.get(name), str), f"files: says nothing of {name}")
    need(isinstance(macs, list) and macs, "macs: is no list of costs")
    exits = len(macs) if whole else len(programs)
    need(len(programs) == 1 or not whole, "programs: a single file is one program")
    need(
        _numbers(macs, exits, 1, 1e18) and all(a < b for a, b in pairwise(macs)),
        f"macs: {exits} growing costs are needed, one per stage",
    )
    transform = manifest["transform"]
    for name in ("resize", "crop"):
        need(
            isinstance(transform[name], int) and is_number(transform[name], 1, MAX_SIDE),
            f"transform.{name}: is no side in pixels",
        )
    need(_numbers(transform["mean"], 3, -10, 10), "transform.mean: three numbers are needed")
    need(_numbers(transform["std"], 3, 1e-6, 10), "transform.std: three positive ones are needed")
    kind = transform["interpolation"].partition(",")[0].upper()
    need(kind in Image.Resampling.__members__, "transform.interpolation: is unknown")


def check_state(state: Any) -> None:
    if not isinstance(state, dict) or state.get("schema") != STATE_SCHEMA:
        raise Unusable(f"is not of schema {STATE_SCHEMA}")
    counts = [*state["exits"], state["audited"], state["disagreed"]]
    need(all(type(n) is int and 0 <= n < 1 << 53 for n in counts), "counts are no numbers")
    need(set(state["alarms"]) <= {"risk", "cost"}, "alarms: there are risk and cost")
    for name in ("watched_sha256", "max_risk", "max_cost", "delta"):
        need(name in state, f"{name}: is missing")


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Whole or not at all: written beside ``path``, and renamed."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("w") as file:
            json.dump(record, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def check_labels(labels: Any) -> None:
    need(
        isinstance(labels, list) and len(labels) > 1 and all(isinstance(n, str) for n in labels),
        "is no list of two or more class names",
    )


def check_policy(policy: Any, exits: int, weights_sha256: str | None) -> None:
    if not isinstance(policy, dict) or policy.get("schema") != POLICY_SCHEMA:
        raise Unusable(f"is not of schema {POLICY_SCHEMA}")
    fitted = policy["fitted_on"]["checkpoint_sha256"]
    need(
        weights_sha256 is None or fitted in (None, weights_sha256),
        "was fitted on other weights than those of this folder: its thresholds are not for them",
    )
    need(policy["confidence"] in CONFIDENCES, f"confidence: is none of {', '.join(CONFIDENCES)}")
    need(
        _numbers(policy["temperatures"], exits, 1e-6, 1e6),
        f"temperatures: {exits} numbers from 1e-6 to 1e6 are needed, one per exit",
    )
    rows = policy["combination"]["weights"]
    need(
        isinstance(rows, list) and len(rows) == exits,
        f"combination.weights: {exits} rows are needed, one per exit",
    )
    for k, row in enumerate(rows):
        need(
            _numbers(row, exits, 0, 1) and abs(sum(row) - 1) < 1e-6 and not any(row[k + 1 :]),
            f"combination.weights: row {k + 1} is no average of the first {k + 1} exits",
        )
    thresholds = policy["points"][0]["thresholds"]
    need(
        isinstance(thresholds, list)
        and len(thresholds) == exits - 1
        and all(t is None or is_number(t, 0, 1) for t in thresholds),
        f"points.0.thresholds: {exits - 1} numbers from 0 to 1 are needed (null: never leave)",
    )


def need(condition: object, what: str) -> None:
    if not condition:
        raise Unusable(what)


def _numbers(values: Any, count: int, low: float, high: float) -> bool:
    """Whether ``values`` are ``count`` numbers in [low, high]."""
    wanted = isinstance(values, list) and len(values) == count
    return wanted and all(is_number(value, low, high) for value in values)


def is_number(value: Any, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high


def verified(path: Path, files: Sequence[Mapping[str, Any]]) -> Path:
    """``path`` if its content is what the manifest says."""
    wanted = {entry["name"]: entry["sha256"] for entry in files}[path.name]
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        raise Unusable(f"{path}: {problem.strerror}") from None
    if found != wanted:
        raise Unusable(f"{path}: does not match the manifest (altered or damaged)")
    return path


def open_onnx(path: Path, threads: int | None) -> Program:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it would report to its maker
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # one class per kind of damage, none of them documented
        raise Unusable(f"{path}: is no ONNX program ({first_line(problem)})") from None
    names = [tensor.name for tensor in session.get_inputs()]

    def program(state: Sequence[Array]) -> list[Array]:
        outputs: list[Array] = session.run(None, dict(zip(names, state, strict=True)))
        return outputs

    return program


def open_pt2(path: Path, threads: int | None) -> Program:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.11 reads its own files by means it warns of
        try:
            module = torch.export.load(path).module()
        except Exception as problem:  # as above
            raise Unusable(f"{path}: is no PT2 program ({first_line(problem)})") from None

    def program(state: Sequence[Array]) -> list[Array]:
        with torch.inference_mode():
            outputs = module(*(torch.from_numpy(tensor) for tensor in state))
        return [tensor.numpy() for tensor in outputs]

    return program
