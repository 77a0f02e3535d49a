"""After how many images a policy that watches itself sounds an alarm, when images change.

    python benchmarks/drift.py --run RUN [--max-risk 0.05 --images 5000]

Test images of a run, as they are, corrupted, and only those that take the last exit. The policy
guarantees the risk: its thresholds come from one half of val, the guarantee from the other (the
run's loss weights must be fixed). 2 % are audited. Streams draw these images at random, with
replacement, in batches of 64, and one looks after every batch. Writes
benchmarks/results/drift.json. K exits, N images, S streams, T batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from harness import options, write_record
from torch import Tensor
from torchvision.transforms.v2 import functional

from hdkd_cli.evaluation.betting import log_capital
from hdkd_cli.evaluation.calibration import RISK_COMBINATION, RISK_CONFIDENCE, calibrate_risk
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.simulate import choose_exits, threshold_array
from hdkd_cli.evaluation.table import tabulate
from hdkd_cli.evaluation.watch import Promise
from hdkd_cli.library.run import Run

SHARE, BATCH, STREAMS = 0.02, 64, 100
BATCHES = 800  # about 50,000 images


def noisy(images: Tensor, deviation: float) -> Tensor:
    """Gaussian noise, the same each time."""
    generator = torch.Generator().manual_seed(0)
    return images + deviation * torch.randn(images.shape, generator=generator)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, six sigma wide."""
    return functional.gaussian_blur(images, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma, sigma])


# Of images from 0 to 1.
CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda images: images,
    **{f"blur, sigma {s}": partial(blurred, sigma=s) for s in (0.5, 1.0, 2.0)},
    **{f"noise, deviation {d}": partial(noisy, deviation=d) for d in (0.05, 0.1, 0.2)},
    **{
        f"contrast × {c}": partial(functional.adjust_contrast, contrast_factor=c)
        for c in (0.7, 0.5, 0.3)
    },
}


def half(scores: Scores, which: int) -> Scores:
    """Every other sample."""
    return replace(
        scores,
        logits_KNC=scores.logits_KNC[:, which::2],
        labels_N=scores.labels_N[which::2],
    )


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
    given = options(__doc__, run=Path, max_risk=0.05, delta=0.1, images=5000, threads=1)
    run = Run.open(given.run, device="cpu")
    if run.settings.weights.learned:
        raise SystemExit("val trained this run's loss weights: it can bear no guarantee")
    val, macs_K = run.scores("val"), run.costs.macs_K
    policy = calibrate_risk(
        half(val, 0), half(val, 1), combination=RISK_COMBINATION, confidence=RISK_CONFIDENCE,
        temperature=False, guarantee="ltt", loss="disagreement", epsilon=given.max_risk,
        delta=given.delta,
    )  # fmt: skip
    (point,) = policy.points
    promise = Promise.of(
        macs_K,
        point.val_macs,
        policy.fitted_on.samples,
        max_risk=given.max_risk,
        delta=given.delta,
    )
    net, cost_K = run.runtimes.net, np.array(macs_K) / macs_K[-1]
    images = run.draw("test", given.images).images_NCHW
    data = run.settings.data
    mean, std = (torch.tensor(one)[:, None, None] for one in (data.mean, data.std))

    def answers(corrupt: Callable[[Tensor], Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """Exit of each image, and whether the last one says something else, (N,)."""
        seen = (corrupt(images * std + mean).clamp(0, 1) - mean) / std
        with torch.inference_mode():
            logits_KNC = torch.cat([net(batch) for batch in seen.split(250)], dim=1).numpy()
        scores = Scores(logits_KNC, np.zeros(len(seen), np.int64), macs_K)
        table = tabulate(scores, policy.combination, policy.temperatures, policy.confidence)
        exit_N = choose_exits(table.confidence_KN, threshold_array([point]))[0]
        said_N = np.take_along_axis(table.prediction_KN, exit_N[None], axis=0)[0]
        return exit_N.astype(np.int8), (said_N != table.prediction_KN[-1]).astype(np.int8)

    found = {name: answers(corrupt) for name, corrupt in CORRUPTIONS.items()}
    exit_N, differs_N = found["none"]
    slow_N = exit_N == exit_N.max()
    found["none, only the last exit's"] = exit_N[slow_N], differs_N[slow_N]
    random = np.random.default_rng(0)
    rows = []
    for name, (exit_N, differs_N) in found.items():
        drawn_SN = random.integers(len(exit_N), size=(STREAMS, BATCHES * BATCH), dtype=np.int32)
        audited_SN = random.random(drawn_SN.shape, np.float32) < SHARE
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
