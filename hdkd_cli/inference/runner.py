"""Classify images with an exported network that leaves early. Needs no hdkd.

    python run.py IMAGE ... [--batch-size N] [--threads N] [--audit 0.02 [--fail-on-drift]]

Prints one JSON line per image. Needs numpy, pillow, and onnxruntime; torch in its place if the
programs beside this file end in .pt2. From Python: ``Network(folder).classify(images_BCHW)``.
Exit codes: 0 all went well, 2 wrong usage, 3 an image or a file cannot be read, 5 the policy's
promise is broken (with --fail-on-drift).

K exits, B images of a batch, C classes, H W pixels. Exits are 0-based here, 1-based in the output.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hdkd_cli.data.pictures import FORMATS, MAX_ASPECT, framed, to_rgb
from hdkd_cli.evaluation.measures import MEASURES, combine
from hdkd_cli.evaluation.watch import Promise, Watch, fingerprint, promised
from hdkd_cli.inference.exported_files import (
    Array,
    Unusable,
    check_labels,
    check_manifest,
    check_policy,
    check_state,
    first_line,
    is_number,
    need,
    open_onnx,
    open_pt2,
    read_json,
    verified,
    write_json,
)


class Exited(NamedTuple):
    """How each image of a batch left: (B,) each."""

    label_B: NDArray[np.int64]
    exit_B: NDArray[np.int64]
    confidence_B: NDArray[np.float32]


class Network:
    """An exported network and the operating point by which its images leave.

    Args:
        folder: What ``hdkd export`` wrote.
        threads: Of the processor; None: as many as the library likes.

    Raises:
        Unusable: a file is missing, damaged or of another version.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        self.manifest = read_json(folder / "manifest.json", check_manifest)
        self.classes: list[str] = read_json(folder / "labels.json", check_labels)
        exits = len(self.manifest["macs"])
        check = partial(
            check_policy, exits=exits, weights_sha256=self.manifest.get("weights_sha256")
        )
        policy = read_json(folder / "policy.json", check)
        thresholds = policy["points"][0]["thresholds"]
        self.policy: dict[str, Any] = policy
        # An unused exit is one that no image is sure enough for.
        self.thresholds_K = [np.float32(np.inf if t is None else t) for t in thresholds]
        self.weights_KK: list[list[float]] = policy["combination"]["weights"]
        self.temperature_K: list[float] = policy["temperatures"]
        self.confidence: str = policy["confidence"]
        self.single_file: bool = self.manifest["single_file"]
        open_program = {"onnx": open_onnx, "pt2": open_pt2}[self.manifest["to"]]
        self.program_K = [
            open_program(verified(folder / entry["file"], self.manifest["files"]), threads)
            for entry in self.manifest["programs"]
        ]

    def classify(self, images_BCHW: Array, *, all_stay: bool = False) -> Exited:
        """Run stage after stage; an image leaves at the first exit that is sure enough of it.

        The batch shrinks as images leave; the last exit takes all that are left. A single file
        gives the same answers, and computes until the last image of the batch has left.

        Args:
            images_BCHW: As ``prepare`` returns them, float32.
            all_stay: None leaves before the last exit.

        Raises:
            Unusable: a program cannot be run, or the logits are not finite.
        """
        thresholds_K = (
            [np.float32(np.inf)] * len(self.thresholds_K) if all_stay else self.thresholds_K
        )
        if self.single_file:
            return self._classify_at_once(images_BCHW, thresholds_K)
        size, last = len(images_BCHW), len(self.program_K) - 1
        exited = Exited(np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, "f4"))
        staying_B = np.arange(size)  # where in the batch those that go on stand
        state: list[Array] = [images_BCHW]
        seen: list[Array] = []  # logits (B, C) of the exits so far
        for k, program in enumerate(self.program_K):
            if not len(staying_B):
                break
            try:
                logits_BC, *state = program(state)
            except Exception as problem:  # whatever the library says to tensors that do not fit
                raise Unusable(f"stage {k + 1} cannot be run ({first_line(problem)})") from None
            seen.append(logits_BC)
            combined_BC = combine(seen, self.weights_KK[k], self.temperature_K[k])
            sure_B = confidence(combined_BC, self.confidence)
            leaves_B = sure_B >= thresholds_K[k] if k < last else np.ones(len(staying_B), bool)
            gone = staying_B[leaves_B]
            exited.label_B[gone] = combined_BC[leaves_B].argmax(-1)
            exited.exit_B[gone] = k
            exited.confidence_B[gone] = sure_B[leaves_B]
            if leaves_B.any():
                stays_B = ~leaves_B
                staying_B = staying_B[stays_B]
                state, seen = [x[stays_B] for x in state], [x[stays_B] for x in seen]
        return _finite(exited)

    def _classify_at_once(self, images_BCHW: Array, thresholds_K: Sequence[np.float32]) -> Exited:
        """The whole of it in one program."""
        thresholds = np.array(thresholds_K, np.float32)
        try:
            label_B, number_B, sure_B, _ = self.program_K[0]([images_BCHW, thresholds])
        except Exception as problem:  # whatever the library says to tensors that do not fit
            raise Unusable(f"the network cannot be run ({first_line(problem)})") from None
        return _finite(Exited(label_B, number_B - 1, sure_B))

    def watch(
        self,
        share: float,
        told: Callable[[str], object],
        *,
        max_risk: float | None = None,
        delta: float | None = None,
        state: Path | None = None,
    ) -> Watch:
        """What holds the operating point to its promise, see ``Watch``.

        Args:
            share: Share of the images that go to the last exit besides.
            told: Hears of an alarm.
            max_risk: The promise about answers; None: what the policy guarantees.
            delta: Probability of a false alarm; None: that of the guarantee, or 0.1.
            state: Where counts are kept between calls; ``hdkd predict`` may go on with them.

        Raises:
            Unusable: the policy promises nothing, or the state is of another one.
        """
        point, macs = self.policy["points"][0], self.manifest["macs"]
        try:
            given = self.policy.get("guarantee")
            risk, delta = promised(given, max_risk, delta)
            samples, val_macs = self.policy["fitted_on"]["samples"], point["val_macs"]
            need(is_number(samples, 1, 1e18) and is_number(val_macs, 0, 1e18), "is incomplete")
        except (KeyError, TypeError, AttributeError, Unusable):
            raise Unusable("policy.json: says not what its promise of cost rests on") from None
        if risk is None:
            raise Unusable("policy.json: promises nothing about answers (say --max-risk 0.05)")
        watch = Watch(
            Promise.of(macs, val_macs, samples, max_risk=risk, delta=delta),
            np.array(macs) / macs[-1],
            fingerprint(
                self.confidence,
                self.weights_KK,
                self.temperature_K,
                point["thresholds"],
                self.manifest["checkpoint_sha256"],
            ),
            share,
            told,
            None if state is None else partial(write_json, state),
        )
        if state is not None and state.exists():
            try:
                watch.resume(read_json(state, check_state))
            except ValueError as problem:
                raise Unusable(f"{state}: {problem}") from None
        return watch

    def prepare(self, path: Path | BinaryIO) -> Array:
        """Read an image, a path or an open file, and transform it as evaluation does: (3, H, W).

        Raises:
            Unusable: it is missing or not an image.
        """
        try:
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if max(width, height) > MAX_ASPECT * min(width, height):
                    raise ValueError(f"{width}×{height} pixels: too long a strip")
                rgb = to_rgb(image)
        except FileNotFoundError:
            raise Unusable(f"{path}: no such file") from None
        except MemoryError:
            raise
        except Exception as problem:  # Pillow's decoders raise whatever the bytes lead them to
            raise Unusable(f"{path}: not a readable image ({first_line(problem)})") from None
        return prepared(rgb, self.manifest["transform"])

    def record(self, path: Path | str, label: int, exit: int, confidence: float) -> dict[str, Any]:
        """What is printed about one image.

        Raises:
            Unusable: the network has more classes than there are labels.
        """
        if label >= len(self.classes):
            raise Unusable(f"labels.json: has {len(self.classes)} names, none for class {label}")
        return {
            "schema": "hdkd/prediction/1",
            "image": str(path),
            "label": label,
            "class": self.classes[label],
            "exit": exit + 1,
            "confidence": confidence,
            "macs": self.manifest["macs"][exit],
        }


def _finite(exited: Exited) -> Exited:
    if np.isnan(exited.confidence_B).any():  # NaN reaches no threshold: those images arrive last
        raise Unusable("the logits are NaN or infinite: this network did not train")
    return exited


def confidence(logits_BC: Array, kind: str) -> NDArray[np.float32]:
    """How sure an exit is, in [0, 1]: (B,). A number that is compared with a threshold."""
    return MEASURES[kind](logits_BC).astype(np.float32)


def prepared(rgb: Image.Image, transform: Mapping[str, Any]) -> NDArray[np.float32]:
    """Framed, then (x / 255 − mean) / std: float32 (3, H, W)."""
    kind = transform["interpolation"].partition(",")[0]
    image = framed(rgb, transform["resize"], transform["crop"], kind)
    mean, std = (np.array(transform[name], np.float32)[:, None, None] for name in ("mean", "std"))
    pixels_3HW = np.asarray(image).transpose(2, 0, 1).astype(np.float32)
    result: NDArray[np.float32] = (pixels_3HW / np.float32(255) - mean) / std
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(description="Classify images, leaving early.")
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=Path)
    parser.add_argument("--batch-size", metavar="N", type=_positive)
    parser.add_argument("--threads", metavar="N", type=_positive)
    audit = parser.add_argument_group(
        "audit", "whether the images are still what the policy was calibrated on"
    )
    audit.add_argument(
        "--audit", metavar="SHARE", type=_share, help="of the images that go to the last exit too"
    )
    audit.add_argument(
        "--max-risk", metavar="E", type=_probability,
        help="share of other answers than the last exit's that is promised; default: the policy's",
    )  # fmt: skip
    audit.add_argument(
        "--delta", metavar="D", type=_probability,
        help="probability of a false alarm; default: the policy's, or 0.1",
    )  # fmt: skip
    audit.add_argument(
        "--audit-state", metavar="FILE", type=Path, help="keep what was seen between calls"
    )
    audit.add_argument("--fail-on-drift", action="store_true", help="exit code 5 after an alarm")
    asked = parser.parse_args(arguments)
    about = (asked.max_risk, asked.delta, asked.audit_state, asked.fail_on_drift)
    if asked.audit is None and about != (None, None, None, False):
        parser.error("--max-risk, --delta, --audit-state and --fail-on-drift need --audit 0.02")
    try:
        network = Network(Path(__file__).resolve().parent, asked.threads)
        watch = asked.audit and network.watch(
            asked.audit,
            lambda sentence: _say("warning", sentence),
            max_risk=asked.max_risk,
            delta=asked.delta,
            state=asked.audit_state,
        )
        code = _classify_all(network, watch, asked.images, asked.batch_size)
    except ModuleNotFoundError as problem:
        return _complain(f"needs {problem.name}: pip install {problem.name}", 2)
    except Unusable as problem:
        return _complain(problem, 3)
    except OSError as problem:
        return _complain(f"{problem.filename}: {problem.strerror}", 3)
    if watch is None:
        return code
    _say("note", watch.summary())
    if asked.fail_on_drift and watch.alarms and not code:
        return _complain(f"the policy's promise is broken ({', '.join(watch.alarms)})", 5)
    return code


def _classify_all(
    network: Network, watch: Watch | None, images: Sequence[Path], batch_size: int | None
) -> int:
    """Print a line per image; the exit code says whether all could be read."""
    code, size = 0, batch_size or (1 if network.single_file else 64)
    try:
        for start in range(0, len(images), size):
            read: list[tuple[Path, Array]] = []
            for path in images[start : start + size]:
                try:
                    read.append((path, network.prepare(path)))
                except Unusable as problem:
                    code = _complain(problem, 3)
            if read:
                for record in _classified(network, watch, read):
                    sys.stdout.write(json.dumps(record) + "\n")
    finally:
        if watch is not None:
            watch.keep()
    return code


def _classified(
    network: Network, watch: Watch | None, read: Sequence[tuple[Path, Array]]
) -> Iterator[dict[str, Any]]:
    """What is printed about the images of a batch."""
    images_BCHW = np.stack([image for _, image in read])
    last: dict[int, int] = {}  # place of an image → what the last exit says
    if watch is not None and len(drawn := watch.draw(len(read))):
        said = network.classify(images_BCHW[drawn], all_stay=True)
        last = dict(zip(drawn.tolist(), said.label_B.tolist(), strict=True))
    exited = network.classify(images_BCHW)
    if watch is not None:
        agreed = [label == int(exited.label_B[place]) for place, label in last.items()]
        watch.observe(exited.exit_B.tolist(), agreed)
    for place, ((path, _), *way) in enumerate(
        zip(read, *(a.tolist() for a in exited), strict=True)
    ):
        record = network.record(path, *way)
        if place in last:
            label = last[place]
            record["audit"] = {
                "label": label, "class": network.classes[label], "agrees": label == way[0],
            }  # fmt: skip
        if watch is not None and watch.alarms:
            record["alarms"] = list(watch.alarms)
        yield record


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a positive number is needed")
    return int(text)


def _probability(text: str) -> float:
    value = _share(text)
    if value == 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a number between 0 and 1 is needed")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a number above 0, and at most 1, is needed")
    return value


def _complain(problem: object, code: int) -> int:
    _say("error", problem)
    return code


def _say(what: str, problem: object) -> None:
    # A file's name may hold what a terminal would obey.
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(problem))
    sys.stderr.write(f"{what}: {''.join(shown)}\n")


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # a reader that went away ends the program quietly
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
