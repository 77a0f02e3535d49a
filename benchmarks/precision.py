"""What fp16 and int8 do to an exported run: every exit's accuracy, the policy's, size and time.

    python benchmarks/precision.py --run RUN --data-dir IMAGES [--budget 0.5]

Writes benchmarks/results/precision.json. Stages and single files of all precisions run in turn, on
the same batch, on one thread, and stages also with all images to the last exit; what counts is the
processor's time, which other processes on the same core do not lengthen. Accuracy is that of the
test split.
"""

from __future__ import annotations

import copy
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
from harness import CPU, options, write_record
from numpy.typing import NDArray

from hdkd_cli.choices import ExportPrecision
from hdkd_cli.evaluation.policy import read_policy
from hdkd_cli.inference import exported_latency
from hdkd_cli.inference.exported_network import Network
from hdkd_cli.library.run import Run

PRECISIONS = get_args(ExportPrecision)
BATCHES = {1: 300, 64: 24}  # images that enter together: rounds


def answers(network: Network, images_NCHW: NDArray[np.float32]) -> NDArray[np.int64]:
    """What every exit says by itself, (K, N)."""
    parts = []
    for images_BCHW in np.split(images_NCHW, range(250, len(images_NCHW), 250)):
        state, said = [images_BCHW], []
        for program in network.program_K:
            logits_BC, *state = program(state)
            said.append(logits_BC.argmax(-1))
        parts.append(np.stack(said))
    return np.concatenate(parts, axis=1)


def under_policy(
    network: Network, images_NCHW: NDArray[np.float32], labels_N: NDArray[np.int64]
) -> dict[str, float]:
    """Accuracy and mean cost when images leave early."""
    parts = [
        network.classify(images_BCHW)
        for images_BCHW in np.split(images_NCHW, range(250, len(images_NCHW), 250))
    ]
    label_N, exit_N, _ = (np.concatenate(column) for column in zip(*parts, strict=True))
    macs_K = np.array(network.manifest["macs"])
    return {
        "top1_pct": 100 * float((label_N == labels_N).mean()),
        "macs": float(macs_K[exit_N].mean()),
    }


def quartiles(values: NDArray[np.float64]) -> dict[str, float]:
    """Median, and what half of the values lie between."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": float(median), "p25": float(low), "p75": float(high)}


def timed(networks: dict[str, Network], images_NCHW: NDArray[np.float32]) -> list[dict]:
    """Processor milliseconds per image, and what fp32 stages take over it on the same batch."""
    rows = []
    for size, rounds in BATCHES.items():
        seconds: dict[str, NDArray[np.float64]] = {name: np.zeros(rounds) for name in networks}
        for turn in range(-2, rounds):  # the first two do not count
            first = turn * size % (len(images_NCHW) - size)
            for name, network in networks.items():
                began = time.process_time()
                network.classify(images_NCHW[first : first + size])
                if turn >= 0:
                    seconds[name][turn] = time.process_time() - began
        for name, taken in seconds.items():
            fp32 = "fp32 stages, last exit" if name.endswith("last exit") else "fp32 stages"
            rows.append(
                {
                    "batch": size,
                    "arm": name,
                    "mean_ms": 1000 * float(taken.mean()) / size,
                    "ms": quartiles(1000 * taken / size),
                    "speedup": quartiles(seconds[fp32] / taken),
                }
            )
    return rows


def main() -> None:
    """Export, measure, print and write the result."""
    given = options(__doc__, run=Path, data_dir=Path, budget=0.5, threads=1)
    run = Run.open(given.run, data_dir=given.data_dir, device="cpu")
    exported_latency.SECONDS = 0.02  # it is measured here
    labels_N = run.scores("test").labels_N
    drawn = run.draw("test", len(labels_N), CPU)
    labels_N, images_NCHW = labels_N[drawn.places], drawn.images_NCHW.contiguous().numpy()
    networks: dict[str, Network] = {}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for precision, whole in product(PRECISIONS, (False, True)):
            name = f"{precision} {'single file' if whole else 'stages'}"
            folder = Path(scratch) / name.replace(" ", "-")
            record = run.export(
                "onnx", folder, budget=given.budget, single_file=whole, precision=precision
            )
            networks[name] = network = Network(folder, given.threads)
            if whole:
                rows[-1]["single_file_bytes"] = (folder / "network.onnx").stat().st_size
                continue
            said_KN = answers(network, images_NCHW)
            if precision == "fp32":
                fp32_KN = said_KN
            rows.append(
                {
                    "precision": precision,
                    "bytes": sum(f.bytes for f in record.files if f.name.endswith(".onnx")),
                    "top1_pct": (100 * (said_KN == labels_N).mean(1)).tolist(),
                    "agreement_pct": (100 * (said_KN == fp32_KN).mean(1)).tolist(),
                    "policy": under_policy(network, images_NCHW, labels_N),
                    "thresholds": read_policy(folder / "policy.json").points[0].thresholds,
                }
            )
            if precision != "fp32":  # what fp32's thresholds would have done
                network.thresholds_K, own = (
                    networks["fp32 stages"].thresholds_K,
                    network.thresholds_K,
                )
                rows[-1]["with_fp32_thresholds"] = under_policy(network, images_NCHW, labels_N)
                network.thresholds_K = own
            print(rows[-1], flush=True)
        for precision in PRECISIONS:
            full = copy.copy(networks[f"{precision} stages"])
            full.thresholds_K = [np.float32(np.inf)] * len(full.thresholds_K)
            networks[f"{precision} stages, last exit"] = full
        times = timed(networks, images_NCHW)
    for row in times:
        print(row)
    path = write_record(
        "precision",
        "accuracy, size and time of exported programs in fp32, fp16 and int8",
        network=f"{run.settings.data.name}, {run.settings.model.name}",
        images=len(labels_N),
        budget=given.budget,
        rows=rows,
        times=times,
    )
    print(path)


if __name__ == "__main__":
    main()
