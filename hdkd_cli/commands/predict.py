"""``hdkd predict``: classify images, leaving early."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from hdkd_cli.choices import OutputFormat
from hdkd_cli.commands import options
from hdkd_cli.commands.inputs import open_run, policy_option
from hdkd_cli.errors import DataError, UsageError
from hdkd_cli.ui.console import talk
from hdkd_cli.ui.output import emit

if TYPE_CHECKING:
    import torch

    from hdkd_cli.evaluation.policy import ExitPolicy, OperatingPoint
    from hdkd_cli.library.run import Run
    from hdkd_cli.records import Prediction

COLUMNS = ("image", "class", "exit", "confidence", "macs")


def predict(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Run folder, or -.", show_default=False)
    ],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE|FOLDER|-...",
            help="Image files; folders, searched to any depth; or - for paths on stdin.",
            show_default=False,
        ),
    ],
    policy: options.PolicyOption = None,
    budget: options.BudgetOption = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Images that cannot be read are no failure.")
    ] = False,
    regroup: Annotated[
        bool,
        typer.Option(
            "--regroup",
            help="Let samples wait before each stage until a full batch is there: more images a "
            "second on a GPU or in small batches, answers come later.",
        ),
    ] = False,
    allow_mismatch: options.AllowMismatchOption = False,
    data_dir: options.DataDirOption = None,
    device: options.DeviceOption = None,
    batch_size: options.BatchSizeOption = None,
    form: Annotated[
        OutputFormat | None, typer.Option("--format", help="Default: jsonl, as batches are done.")
    ] = None,
) -> None:
    """Classify images; each leaves the network as soon as its policy lets it.

    One line an image, in the order of the images. Without --budget: the policy's most accurate
    point. --data-dir is needed only if --budget has to be solved for and the run has moved.
    """
    _refuse_stdin_twice(run, images, policy)
    from hdkd_cli.inference.arriving import image_files, lines_of

    opened = open_run(
        run,
        data_dir=data_dir,
        device=device,
        batch_size=batch_size,
        allow_mismatch=allow_mismatch,
    )
    names: Iterable[str] = lines_of(sys.stdin.fileno()) if images == ["-"] else image_files(images)
    chosen = opened.policy(policy_option(policy))
    session = _Session(opened, chosen, opened.point(chosen, budget), regroup=regroup)
    emit(session.records(names), form or "jsonl", columns=COLUMNS)
    session.close()
    if session.bad and not skip_bad:
        raise DataError(
            f"{session.bad} of {session.bad + session.done} images could not be read "
            "(--skip-bad makes that no failure)"
        )


def _refuse_stdin_twice(run: str, images: list[str], policy: str | None) -> None:
    if "-" in images and len(images) > 1:
        raise UsageError("- reads the paths of all images from stdin: no others with it")
    if [run, policy, *images].count("-") > 1:
        raise UsageError("only one of RUN, --policy and the images can be read from stdin")


class _Session:
    """Images in, records out, and what is to be said at the end."""

    def __init__(
        self,
        run: Run,
        policy: ExitPolicy,
        point: OperatingPoint,
        *,
        regroup: bool,
    ) -> None:
        from hdkd_cli.inference.early_exit import EarlyExit
        from hdkd_cli.inference.regroup import Regrouped

        self.settings = run.settings.data
        self.classes = run.classes
        self.macs_K = run.costs.macs_K
        self.device = run.where
        self.batch_size = run.images_per_pass
        self.early = EarlyExit(run.deployed, policy, point)
        self.stream = None
        if regroup:
            self.stream = Regrouped(run.deployed, policy, point, batch_size=self.batch_size)
        self.done = self.bad = 0
        self.exits: Counter[int] = Counter()
        self.began: float | None = None
        self.ended = 0.0

    def records(self, names: Iterable[str]) -> Iterator[Prediction]:
        """One record an image, in order; those of a batch are out before the next one runs."""
        from hdkd_cli.devices import cpu_count
        from hdkd_cli.inference.arriving import batches_of

        waiting: list[str] = []
        threads = min(8, cpu_count())
        batches = batches_of(names, self.settings, self.batch_size, self._refused, threads=threads)
        for batch in batches:
            waiting.extend(arrived.name for arrived in batch)
            answers = self._answers([a.pixels for a in batch])
            for name, answer in zip(waiting, answers, strict=False):
                yield self._record(name, *answer)
            del waiting[: len(answers)]
            sys.stdout.flush()

    def _answers(self, pixels: list[torch.Tensor]) -> list[tuple[int, int, float]]:
        """(class, exit, confidence) of the images whose turn it is."""
        import torch

        from hdkd_cli.data.transform import Normalise
        from hdkd_cli.inference.ready import memory_order

        parts = []
        if pixels:
            self.began = self.began or time.monotonic()
            order = memory_order(self.device)
            pixels_B3HW = torch.stack(pixels).to(self.device).contiguous(memory_format=order)
            images = Normalise(self.settings, self.device)(pixels_B3HW)
            parts.append(self.early(images) if self.stream is None else self.stream.feed(images))
        if self.stream is not None and len(pixels) < self.batch_size:
            parts.append(self.stream.flush())
        answers = [
            answer
            for part in parts
            for answer in zip(
                part.prediction_B.tolist(),
                part.exit_B.tolist(),
                part.confidence_B.tolist(),
                strict=True,
            )
        ]
        if answers:
            self.ended = time.monotonic()
        return answers

    def _record(self, name: str, label: int, k: int, confidence: float) -> Prediction:
        from hdkd_cli.records import Prediction

        self.done += 1
        self.exits[k] += 1
        return Prediction(
            image=name,
            label=label,
            class_name=self.classes[label],
            exit=k + 1,
            confidence=confidence,
            macs=self.macs_K[k],
        )

    def _refused(self, problem: DataError) -> None:
        self.bad += 1
        talk.warning(str(problem))

    def close(self) -> None:
        """Say how fast it was."""
        if not self.done or self.began is None:
            talk.note("no images")
            return
        mean_macs = sum(self.macs_K[k] * count for k, count in self.exits.items()) / self.done
        seconds = max(self.ended - self.began, 1e-9)
        talk.note(
            f"{self.done:,} images, {self.done / seconds:,.1f} images/s, "
            f"{mean_macs / 1e6:.2f} M MACs an image, "
            f"{100 * mean_macs / self.macs_K[-1]:.1f} % of the full network"
        )
