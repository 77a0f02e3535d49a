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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hdkd_cli.evaluation.watch import Watch
from hdkd_cli.inference.exported_files import Array, Unusable
from hdkd_cli.inference.exported_network import Network


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
