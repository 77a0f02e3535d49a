"""An exported network: images in, answers out, left early. Needs no torch if its programs do not.

K exits, B images of a batch, C classes, H W pixels. Exits are 0-based here, 1-based in records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hdkd_cli.data.pictures import NoPicture, framed, read_picture, to_rgb
from hdkd_cli.evaluation.measures import MEASURES, combine
from hdkd_cli.evaluation.watch import Promise, Watch, fingerprint, promised
from hdkd_cli.inference.exported_files import (
    Array,
    Unusable,
    check_labels,
    check_manifest,
    check_policy,
    check_state,
    is_number,
    need,
    open_onnx,
    open_pt2,
    read_json,
    verified,
    write_json,
)
from hdkd_cli.wording import first_line


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
            rgb = read_picture(path, to_rgb)
        except FileNotFoundError:
            raise Unusable(f"{path}: no such file") from None
        except OSError as problem:
            raise Unusable(f"{path}: {problem.strerror or problem}") from None
        except NoPicture as problem:
            raise Unusable(f"{path}: {problem}") from None
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
