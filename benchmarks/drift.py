"""After how many images a policy that watches itself sounds an alarm, when images change.

    python benchmarks/drift.py --run RUN

Test images of a run, as they are and corrupted; ``optimal`` at half the cost, audited at 2 %.
Streams draw these images at random, with replacement, in batches of 64, and one looks after every
batch. Writes benchmarks/results/drift.json. K exits, N images, S streams, T batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from harness import options, write_record
from torch import Tensor
from torchvision.transforms.v2 import functional

from hdkd_cli.evaluation.calibration import POLICIES, fit_policy
from hdkd_cli.evaluation.operating_point import everybody_stays
from hdkd_cli.evaluation.watch import Promise, log_capital
from hdkd_cli.inference.early_exit import EarlyExit
from hdkd_cli.library.run import Run

SHARE, BATCH, STREAMS = 0.02, 64, 100
BATCHES = 800  # about 50,000 images


def noisy(images: Tensor, deviation: float) -> Tensor:
    """Gaussian noise, the same each time."""
    generator = torch.Generator().manual_seed(0)
    return images + deviation * torch.randn(images.shape, generator=generator)


# Of images from 0 to 1.
CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda images: images,
    "blur, sigma 1": lambda images: functional.gaussian_blur(images, [7, 7], [1.0, 1.0]),
    "blur, sigma 2": lambda images: functional.gaussian_blur(images, [13, 13], [2.0, 2.0]),
    "noise, deviation 0.1": lambda images: noisy(images, 0.1),
    "noise, deviation 0.3": lambda images: noisy(images, 0.3),
    "contrast × 0.5": lambda images: functional.adjust_contrast(images, 0.5),
    "contrast × 0.2": lambda images: functional.adjust_contrast(images, 0.2),
}


def first_alarm(
    values_V: np.ndarray, seen_SN: np.ndarray, bound: float, alpha: float
) -> np.ndarray:
    """Images until the capital reaches 1/α, (S,); inf: never.

    Args:
        values_V: What an image can have.
        seen_SN: Which of them each image of each stream has; −1: it was not looked at.
        bound: The promise.
        alpha: Level.
    """
    found = []
    for seen_N in seen_SN:
        counts_NV = (seen_N[:, None] == np.arange(len(values_V))).cumsum(axis=0)
        won_T = log_capital(values_V, counts_NV[BATCH - 1 :: BATCH], bound)
        alarmed_T = won_T >= -math.log(alpha)
        found.append(BATCH * (1 + alarmed_T.argmax()) if alarmed_T.any() else np.inf)
    return np.array(found)


def said(images_S: np.ndarray) -> dict[str, float | None]:
    """Share of streams with an alarm, and the images until then; None: most had none."""
    middle, most = np.quantile(images_S, [0.5, 0.9], method="inverted_cdf")
    return {
        "alarmed": float(np.isfinite(images_S).mean()),
        "median_images": float(middle) if math.isfinite(middle) else None,
        "p90_images": float(most) if math.isfinite(most) else None,
    }


def main() -> None:
    """Measure, print and write the result."""
    given = options(__doc__, run=Path, max_risk=0.05, delta=0.1, threads=1)
    run = Run.open(given.run, device="cpu")
    val, macs_K = run.scores("val"), run.costs.macs_K
    search = POLICIES["optimal"]
    policy = fit_policy(
        "optimal", val, combination=search.combination, confidence=search.confidence,
        temperature=False, budgets_macs=[macs_K[-1] / 2],
    )  # fmt: skip
    (point,) = policy.points
    promise = Promise.of(
        macs_K, point.val_macs, val.num_samples, max_risk=given.max_risk, delta=given.delta
    )
    net, cost_K = run.runtimes.net, np.array(macs_K) / macs_K[-1]
    early, last = EarlyExit(net, policy), EarlyExit(net, policy, everybody_stays(policy))
    images = run.draw("test", 10_000).images_NCHW
    data = run.settings.data
    mean, std = (torch.tensor(one)[:, None, None] for one in (data.mean, data.std))
    random = np.random.default_rng(0)
    drawn_SN = random.integers(len(images), size=(STREAMS, BATCHES * BATCH), dtype=np.int32)
    audited_SN = random.random(drawn_SN.shape, np.float32) < SHARE
    rows = []
    for name, corrupt in CORRUPTIONS.items():
        seen = (corrupt(images * std + mean).clamp(0, 1) - mean) / std
        left = early(seen)
        differs_N = (left.prediction_B != last(seen).prediction_B).astype(np.int8)
        exit_N = left.exit_B.astype(np.int8)
        risk_S = first_alarm(
            np.array([0.0, 1.0]),
            np.where(audited_SN, differs_N[drawn_SN], -1),
            promise.max_risk,
            given.delta / 2,
        )
        cost_S = first_alarm(cost_K, exit_N[drawn_SN], promise.max_cost, given.delta / 4)
        rows.append(
            {
                "corruption": name,
                "disagreement": float(differs_N.mean()),
                "cost": float(cost_K[exit_N].mean()),
                "risk_alarm": said(risk_S),
                "cost_alarm": said(cost_S),
            }
        )
        print(rows[-1])
    path = write_record(
        "drift",
        "images until an audited policy sounds an alarm, on corrupted test images",
        network=f"{run.settings.data.name}, {run.settings.model.name}",
        images=len(images),
        audited_share=SHARE,
        batch=BATCH,
        streams=STREAMS,
        images_per_stream=BATCH * BATCHES,
        max_risk=promise.max_risk,
        max_cost=promise.max_cost,
        delta=promise.delta,
        rows=rows,
    )
    print(path)


if __name__ == "__main__":
    main()
