"""A run folder opened for use: what it is asked for, it reads, checks, collects or computes.

Images, network and scores in `opened`; here policies, and what takes time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hdkd_cli.choices import ExportPrecision, ExportTarget, HeldOut
from hdkd_cli.errors import UsageError
from hdkd_cli.evaluation.audit import Auditing, watching
from hdkd_cli.evaluation.budget import parse_budget
from hdkd_cli.evaluation.compatibility import check_checkpoint, check_exits
from hdkd_cli.evaluation.operating_point import geometric_point, last_exit
from hdkd_cli.evaluation.policy import ExitPolicy, OperatingPoint
from hdkd_cli.evaluation.scores import Scores
from hdkd_cli.evaluation.table import tabulate
from hdkd_cli.evaluation.times import parse_time
from hdkd_cli.files import write_json
from hdkd_cli.inference import latency, measured
from hdkd_cli.inference.predictor import Predictor
from hdkd_cli.library.exporting import export_run
from hdkd_cli.library.opened import OpenedRun
from hdkd_cli.library.profile import PROFILE_BATCH_SIZE, PROFILE_SECONDS, profile_network
from hdkd_cli.records.evaluation import Budget
from hdkd_cli.records.export import Export
from hdkd_cli.records.profile import PolicyProfile, Profile


@dataclass(frozen=True, kw_only=True)
class Run(OpenedRun):
    """A run, where its images are, and what it runs on.

    Scores come from the run's folder while their fingerprints are those of run.json and of the
    checkpoint: a run without its images can be calibrated and evaluated. Images are opened if
    scores must be collected, if images themselves are asked for, or if ``data_dir`` names a folder,
    which is then compared with the run's splits.

    Attributes:
        folder: The run.
        data_dir: Where its images are now; None: where they were in training.
        device: What to run on: auto, cpu, cuda, cuda:N or mps; None: auto.
        batch_size: Images per forward pass; None: the run's ``evaluation.batch_size``.
        runtime: What classifies images and is profiled: torch, onnx (onnxruntime, on a CPU), or
            auto, which takes the faster one once a trial pays. Scores always come from torch.
    """

    @property
    def _opened(self) -> Run:
        """Itself."""
        return self

    # -- policies -----------------------------------------------------------------------------

    def policy(self, policy: ExitPolicy | str | Path | None = None) -> ExitPolicy:
        """A policy that belongs to the checkpoint; what cannot be told is told to ``warn``.

        Args:
            policy: A policy, its name in the run, a file; None: the one calibrated last.

        Raises:
            UsageError: none is given and none was calibrated.
            PolicyError: it is missing, unusable, or of another network.
        """
        found = self.find_policy(policy)
        check_exits(found, len(self.costs.macs_K))
        sha256 = self.folder.checkpoint().model_sha256
        for warning in check_checkpoint(
            found, sha256, self.name, allow_mismatch=self.allow_mismatch
        ):
            self.warn(warning)
        return found

    def point(self, policy: ExitPolicy, budget: str | float | None = None) -> OperatingPoint:
        """The one operating point of a policy to work with.

        With a budget, ``geometric`` is solved for it on the run's val scores (a point calibrated
        for just this budget is that solution), and others give their best point within it. Without
        one: the highest validation accuracy, the cheaper on ties.

        Args:
            policy: The family.
            budget: Mean cost: a fraction of the full network's, an amount such as "30M", or a time
                per image such as "3ms", if the policy was made for times.

        Raises:
            UsageError: the budget is none, or cannot be met.
        """
        if budget is None:
            return policy.select()
        if (seconds := parse_time(str(budget))) is not None:
            return policy.within(seconds)
        macs = parse_budget(str(budget), self.costs.macs_K[-1])
        if policy.kind != "geometric":
            return policy.select(macs)
        made_for_it = [point for point in policy.points if point.target_macs == macs]
        return made_for_it[0] if made_for_it else geometric_point(policy, self.scores("val"), macs)

    def predictor(
        self,
        policy: ExitPolicy | str | Path | None = None,
        *,
        budget: str | float | None = None,
        regroup: bool = False,
        top: int = 0,
        audit: Auditing | None = None,
    ) -> Predictor:
        """What classifies images with this run.

        Args:
            policy: A policy, its name in the run, a file; None: the one calibrated last, or the
                last exit, if there is none.
            budget: See `point`.
            regroup: Let samples wait before each stage until a full batch is there.
            top: How many of the most probable classes a prediction lists.
            audit: Send some images to the last exit besides, and watch the policy's promise.

        Raises:
            UsageError: a budget without a policy, or one that cannot be met; an audit without a
                policy or a promise.
            PolicyError: the policy is missing, unusable, or of another network.
        """
        if policy is None and budget is None and not self.has_policy():
            self.note("no policy was calibrated yet: all images take the last exit")
            if audit is not None:
                raise UsageError(
                    "--audit: there is no policy that could be watched",
                    hint=f"run `hdkd calibrate-thresholds {self.path}`",
                )
            found = last_exit(self.costs.macs_K)
        else:
            found = self.policy(policy)
        point = self.point(found, budget)
        return Predictor(
            self.runtimes,
            found,
            point,
            transform=self.transform,
            classes=self.classes,
            macs_K=self.costs.macs_K,
            batch_size=self.images_per_pass,
            regroup=regroup,
            top=top,
            watch=None
            if audit is None
            else watching(
                found,
                point,
                self.costs.macs_K,
                self.folder.checkpoint().model_sha256,
                audit,
                self.warn,
            ),
            note=self.note,
        )

    # -- what takes time ----------------------------------------------------------------------

    def _time_points(self, record: Budget, policy: ExitPolicy, scores: Scores) -> Budget:
        """Run every point of a policy on some images; add what it took to its row."""
        net, size = self.runtimes.net, self.images_per_pass
        count = measured.images_in_time(net, len(policy.points), size)
        places, images = self.draw(cast("HeldOut", scores.meta["split"]), count)
        result = measured.measure_points(net, policy, images, size)
        table = tabulate(scores, policy.combination, policy.temperatures, policy.confidence)
        if unlike := measured.unlike_simulation(result, policy, table, places):
            self.warn(
                f"{unlike} of {result.exit_PN.size} exits taken differ from those simulated, by "
                "more than rounding"
            )
        seconds = zip(
            record.points,
            result.seconds_per_image_P.tolist(),
            result.speedup_P.tolist(),
            strict=True,
        )
        points = tuple(
            point.model_copy(update={"seconds_per_image": taken, "measured_speedup": speedup})
            for point, taken, speedup in seconds
        )
        return record.model_copy(update={"points": points})

    def profile(
        self,
        policy: ExitPolicy | str | Path | None = None,
        *,
        budget: str | float | None = None,
        split: HeldOut | None = None,
        seconds: float = PROFILE_SECONDS,
        batch_size: int = PROFILE_BATCH_SIZE,
    ) -> Profile:
        """Size, cost and measured time of every exit; of a policy, if there is one.

        Args:
            policy: A policy, its name in the run, a file; None: the one calibrated last, if any.
            budget: See `point`.
            split: Whose images are timed under the policy; None: test.
            seconds: About how long to measure.
            batch_size: Images of the throughput measurements.
        """
        exits_only = policy is None and budget is None and not self.has_policy()
        found = None if exits_only else self.policy(policy)
        record = profile_network(
            self.runtimes,
            self.costs,
            found,
            batch_size=batch_size,
            seconds=seconds,
            note=self.note,
            run=self.name,
        )
        if found is None:
            self.note("no policy was calibrated yet (`hdkd calibrate-thresholds`): exits only")
            return self._kept(record)
        last = record.exits[-1]
        size = last.batch_latency_ms.batch
        slowest = max(trial.median for trial in record.runtimes if trial.batch == size) / 1000
        count = latency.images_needed(slowest / size, size, seconds, len(self.runtimes.all()))
        under: PolicyProfile = latency.profile_policy(
            self.runtimes,
            self.costs,
            found,
            self.point(found, budget),
            self.draw(split or "test", count).images_NCHW,
            batch_size=size,
            seconds=seconds,
        )
        return self._kept(record.model_copy(update={"policy": under}))

    def _kept(self, record: Profile) -> Profile:
        """The profile, written where calibration for times finds it."""
        try:
            write_json(self.folder.profile, record.as_record())
        except OSError as problem:
            self.note(f"{self.folder.profile}: not kept ({problem.strerror})")
        return record

    def export(
        self,
        to: ExportTarget,
        folder: Path,
        policy: ExitPolicy | str | Path | None = None,
        *,
        budget: str | float | None = None,
        measure: bool = False,
        single_file: bool = False,
        runtime: Path | None = None,
        precision: ExportPrecision = "fp32",
        calibration_images: int | None = None,
    ) -> Export:
        """Write the network as programs, with its policy, labels and a small runner; or as a page.

        Of lower precision, the policy is fitted again, for the same budget or promise, on what the
        programs themselves answer; what changed is measured, the time too.

        Args:
            to: Format of the programs.
            folder: Where to; absent or empty.
            policy: A policy, its name in the run, a file; None: the one calibrated last.
            budget: See `point`.
            measure: Time the programs and PyTorch on test images (seconds).
            single_file: One ONNX file that stops by itself, instead of a program per stage.
            runtime: Of a page: onnxruntime-web, as ``npm pack`` or ``npm install`` put it there.
            precision: How weights are stored; int8 computes in 8 bits too.
            calibration_images: Val images that decide about the ranges of int8; None: 256.

        Raises:
            UsageError: ``folder`` holds something already, a package is missing, or the format has
                no single file, no runtime, nothing to measure or no such precision.
            ExportError: a stage cannot be expressed, or its program computes something else.
            DataError: a page's examples are missing.
        """
        return export_run(
            self,
            to,
            folder,
            policy,
            budget=budget,
            measure=measure,
            single_file=single_file,
            runtime=runtime,
            precision=precision,
            calibration_images=calibration_images,
        )
