"""A run's network in lower precision, and its policy fitted again on what that answers."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from hdkd_cli.choices import ExportPrecision, HeldOut
from hdkd_cli.evaluation.policy import ExitPolicy
from hdkd_cli.evaluation.refit import refit
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.inference import exported_latency
from hdkd_cli.inference.collect import collect
from hdkd_cli.inference.export import export
from hdkd_cli.inference.exported_network import Network
from hdkd_cli.inference.fold import deployed
from hdkd_cli.inference.programs import Programs
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.records.export import ExportLatency, ReducedExit, Reduction

if TYPE_CHECKING:
    from hdkd_cli.library.run import Run

CALIBRATION_IMAGES = 256
"""Images that decide about the ranges of int8, unless another number is asked for. [ours]"""
_CPU = torch.device("cpu")


def export_smaller(
    run: Run,
    policy: ExitPolicy,
    folder: Path,
    *,
    precision: ExportPrecision,
    images: int | None,
    single_file: bool,
) -> tuple[Reduction, tuple[ExportLatency, ...]]:
    """Write a run's network in lower precision, and measure what that does.

    Args:
        run: The run.
        policy: One operating point, fitted on fp32.
        folder: Where to; absent or empty.
        precision: fp16 or int8.
        images: Val images that decide about the ranges of int8; None: ``CALIBRATION_IMAGES``.
        single_file: One file that stops by itself.

    Returns:
        Accuracy and size, and time.

    Raises:
        ExportError: a stage cannot be expressed or made smaller, or computes something else.
        ScoresError: logits are not finite.
        UsageError: the policy has a guarantee, and the run has no samples for one.
    """
    net = run.network()
    count = (images or CALIBRATION_IMAGES) if precision == "int8" else None

    def write(
        where: Path, policy: ExitPolicy, programs: Programs, reduction: Reduction | None
    ) -> None:
        export(
            net,
            policy,
            run.classes,
            run.settings.data,
            to="onnx",
            folder=where,
            checkpoint_sha256=run.folder.checkpoint().model_sha256,
            single_file=single_file,
            programs=programs,
            reduction=reduction,
        )

    with tempfile.TemporaryDirectory() as scratch:
        before = Path(scratch) / "fp32"
        full = Programs.of(net, "onnx")
        write(before, policy, full, None)
        small = reduced(run, full, precision, count)
        again, scores = fitted_again(run, policy, small)
        sizes = (sum(map(len, full.files)), sum(map(len, small.files)))
        reduction = compared(run.scores("val"), scores, (policy, again), sizes, count)
        write(folder, again, small, reduction)
        latency = time_exported(run, folder, net, policy, before)
    run.note(in_words(precision, reduction, latency))
    return reduction, latency


def time_exported(
    run: Run, folder: Path, net: MultiExitNet, policy: ExitPolicy, fp32: Path | None = None
) -> tuple[ExportLatency, ...]:
    """Exported programs beside PyTorch, on test images, on the processor.

    Args:
        run: Whose images.
        folder: What was exported.
        net: The network it was made of.
        policy: One operating point, of PyTorch and ``fp32``.
        fp32: The same in fp32, if ``folder`` is of lower precision.
    """
    images_NCHW = run.draw("test", exported_latency.IMAGES, _CPU).images_NCHW
    threads = torch.get_num_threads()
    return exported_latency.measure_latency(
        Network(folder, threads),
        deployed(net, _CPU),
        policy,
        images_NCHW,
        None if fp32 is None else Network(fp32, threads),
    )


def in_words(precision: str, reduction: Reduction, latency: tuple[ExportLatency, ...]) -> str:
    """What it did, in a sentence."""
    last = reduction.exits[-1]
    times = ", ".join(
        f"{one.exported_ms:.2f} instead of {one.fp32_ms:.2f} ms per image (batch {one.batch})"
        for one in latency
    )
    return (
        f"{precision}: {reduction.bytes:,} instead of {reduction.fp32_bytes:,} bytes; on "
        f"{reduction.split} {reduction.policy_top1_pct:.2f} instead of "
        f"{reduction.fp32_policy_top1_pct:.2f} % right under the policy, {last.top1_pct:.2f} "
        f"instead of {last.fp32_top1_pct:.2f} % at the last exit; {times}"
    )


def reduced(
    run: Run, programs: Programs, precision: ExportPrecision, images: int | None
) -> Programs:
    """Programs of a run in lower precision.

    Args:
        run: Its val images decide about ranges.
        programs: In fp32, as ONNX.
        precision: fp16 or int8.
        images: How many val images, drawn at random, always the same; None: none are needed.

    Raises:
        ExportError: a stage cannot be made smaller.
    """
    from hdkd_cli.inference import reduced as smaller  # onnxruntime is an extra

    if images is None:
        files = list(map(smaller.halved, programs.files))
    else:
        drawn = run.draw("val", images, _CPU)
        files = smaller.quantised(programs.files, programs.traced, drawn.images_NCHW)
    net = smaller.as_network(files, programs.traced, programs.net)
    return Programs(programs.traced, files, net, precision)


def fitted_again(run: Run, policy: ExitPolicy, programs: Programs) -> tuple[ExitPolicy, Scores]:
    """The policy of a run for its network in lower precision, and the val scores it comes from.

    Args:
        run: Its images are scored by ``programs``.
        policy: One operating point, fitted on fp32.
        programs: The network as it is to be deployed.

    Raises:
        ScoresError: logits are not finite.
        UsageError: the policy has a guarantee, and the run has no samples for one.
    """

    def scores(split: HeldOut, before: Scores) -> Scores:
        batches = run.data(split).evaluation_batches(
            split, batch_size=run.images_per_pass, device=_CPU, channels_last=False
        )
        own = {"checkpoint_sha256": programs.sha256, "precision": programs.precision}
        found = collect(programs.net, batches, run.costs, {})  # which says fp32, of torch's logits
        return replace(found, meta={**before.meta, **own})

    val = scores("val", run.scores("val"))
    again = refit(policy, val, lambda: scores("calibration", run.calibration_scores()), run.warn)
    return again, val


def compared(
    fp32: Scores,
    scores: Scores,
    policies: tuple[ExitPolicy, ExitPolicy],
    sizes: tuple[int, int],
    images: int | None,
) -> Reduction:
    """What lower precision did. Pairs: before, after.

    Args:
        fp32: Scores before.
        scores: Scores of the same images after.
        policies: One operating point each.
        sizes: Bytes of the programs.
        images: How many decided about ranges; None: none were needed.
    """
    before_KN, after_KN = (s.logits_KNC.argmax(-1) for s in (fp32, scores))
    (before,), (after,) = (policy.points for policy in policies)

    def percent(right_N: NDArray[np.bool_]) -> float:
        return 100 * float(right_N.mean())

    return Reduction(
        split=scores.meta["split"],
        samples=scores.num_samples,
        calibration_images=images,
        exits=tuple(
            ReducedExit(
                exit=number,
                fp32_top1_pct=percent(before_N == fp32.labels_N),
                top1_pct=percent(after_N == scores.labels_N),
                agreement_pct=percent(before_N == after_N),
            )
            for number, (before_N, after_N) in enumerate(zip(before_KN, after_KN, strict=True), 1)
        ),
        fp32_bytes=sizes[0],
        bytes=sizes[1],
        fp32_policy_macs=before.val_macs,
        fp32_policy_top1_pct=before.val_top1_pct,
        policy_macs=after.val_macs,
        policy_top1_pct=after.val_top1_pct,
    )
