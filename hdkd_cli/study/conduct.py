"""A study from its plan to its files: check, estimate, train, compare."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hdkd_cli.choices import HeldOut
from hdkd_cli.errors import RunError, UsageError
from hdkd_cli.files import write_json, write_text
from hdkd_cli.method.terms import Term
from hdkd_cli.records.study import RunEstimate, Signal, SignalEntry, Study, StudyEstimate, StudyRow
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.runs.metrics import read_metrics
from hdkd_cli.settings.layers import Resolved
from hdkd_cli.settings.schema import Settings
from hdkd_cli.study.compare import contrasts, enough_seeds, overall, weights_alike
from hdkd_cli.study.draw import draw, draw_signal
from hdkd_cli.study.jobs import Workers, train_all
from hdkd_cli.study.plan import Cell, Plan, cells, followed_by, read_plan, resolved
from hdkd_cli.study.rows import row_of, settings_sha256
from hdkd_cli.study.write import write_study
from hdkd_cli.training.continuations import steps_of_rounds

TRIAL_STEPS = 60
"""Steps after which the speed of a method is known: three updates of the weights at their default
interval."""


@dataclass
class Conduct:
    """One study in its folder.

    Attributes:
        plan: What is to be done.
        folder: Where everything of it is kept.
        flags: ``--data-dir`` and ``--device`` for all runs.
        note: Told what is worth knowing.
    """

    plan: Plan
    folder: Path
    flags: Mapping[str, object]
    note: Callable[[str], object]
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        plan: Path,
        folder: Path,
        *,
        flags: Mapping[str, object],
        note: Callable[[str], object],
    ) -> Conduct:
        """Read and check a plan and every setting in it.

        Raises:
            SettingsError, PresetError: the plan, or a method's settings, are wrong.
            UsageError: the folder holds rows of another plan.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        conduct = cls(read_plan(plan), folder.absolute(), given, note)
        _ = conduct.resolved  # what is wrong with any method's settings is told here
        conduct._refuse_other_rows()
        return conduct

    @cached_property
    def cells(self) -> list[Cell]:
        """All runs, in order."""
        return cells(self.plan)

    @cached_property
    def resolved(self) -> dict[Cell, Resolved]:
        """The settings of every run."""
        return {cell: resolved(self.plan, cell, self.runs, self.flags) for cell in self.cells}

    @property
    def runs(self) -> Path:
        """Folder of the run folders."""
        return self.folder / "runs"

    def rows(self) -> list[StudyRow]:
        """The rows of finished runs, in the plan's order."""
        found = [self._row(cell) for cell in self.cells]
        return [row for row in found if row is not None]

    def _row_file(self, cell: Cell) -> Path:
        return self.folder / "rows" / f"{cell.name}.json"

    def _row(self, cell: Cell) -> StudyRow | None:
        path = self._row_file(cell)
        try:
            return StudyRow.model_validate_json(path.read_text(encoding="utf-8"), strict=True)
        except FileNotFoundError:
            return None
        except ValidationError as problem:
            raise RunError(f"{path}: damaged ({problem.errors()[0]['msg']}); remove it") from None

    def _refuse_other_rows(self) -> None:
        study = self.plan.study
        for cell in self.cells:
            row = self._row(cell)
            if row is None:
                continue
            wanted = settings_sha256(_as_arithmetic_of(row, self.resolved[cell].settings))
            then = row.settings_sha256
            if then != wanted and (self.runs / cell.name).is_dir():
                # settings that hdkd has got since then count as what they do by default
                then = settings_sha256(RunFolder.open(self.runs / cell.name).settings())
            if (then, row.split, row.budgets) != (wanted, study.split, study.budgets):
                raise UsageError(
                    f"{self._row_file(cell)}: was measured under another plan",
                    hint="give the changed study another folder with -o, or remove the old rows",
                )

    def run(self, jobs: int) -> Study:
        """Train what is missing, and write everything anew after each run.

        Raises:
            InterruptedRun: on Ctrl-C; everything is saved.
        """
        workers = Workers(self.runs, self.folder / "logs", self.flags)
        for part in (self.runs, workers.logs):
            part.mkdir(parents=True, exist_ok=True)
        splits: list[HeldOut] = list(dict.fromkeys(["val", self.plan.study.split]))
        todo = [cell for cell in self.cells if self._row(cell) is None]
        self.note(f"{len(self.cells)} runs, {len(todo)} of them missing; in {self.folder}")

        def make(cell: Cell) -> None:
            workers.make(cell, self._alike(cell), splits)

        def done(cell: Cell) -> bool:
            row = row_of(self.runs, cell, self.plan.study.split, self.plan.study.budgets)
            write_text(self._row_file(cell), row.model_dump_json(indent=2) + "\n")
            self.note(
                f"{cell.name}: mean over exits {row.mean_top1_pct:.2f} %, {row.seconds:.0f} s"
            )
            return enough_seeds(self.plan, self._write().runs)

        def failed(cell: Cell, why: str) -> None:
            self.failed[cell.name] = why
            self.note(why)

        if not enough_seeds(self.plan, self.rows()):
            train_all(
                todo, make, workers, jobs=jobs,
                waits_for=lambda cell: followed_by(self.plan, cell), done=done, failed=failed,
            )  # fmt: skip
        record = self._write()
        self._try(lambda: draw(self.folder, record, self.runs))
        return record

    def _try(self, drawing: Callable[[], None]) -> None:
        try:
            drawing()
        except UsageError as problem:
            self.note(f"{problem}: {problem.hint}")

    def _alike(self, cell: Cell) -> Resolved:
        """The settings of a run, in the arithmetic of its setting's first one where they leave it
        open: runs that are compared compute alike."""
        found = self.resolved[cell]
        first = next((row for row in self.rows() if row.setting == cell.setting), None)
        if first is None:
            return found
        return replace(found, settings=_as_arithmetic_of(first, found.settings))

    def _write(self) -> Study:
        rows = self.rows()
        found = contrasts(self.plan, rows)
        record = Study(
            runs=tuple(rows),
            contrasts=tuple(found),
            overall=tuple(overall(self.plan, found)),
            weights=tuple(weights_alike(self.plan, rows, self.runs)),
            failed=self.failed,
        )
        write_study(self.folder, self.plan, record)
        return record

    def signal(self) -> Signal:
        """Measure the signal in every setting, along a run of its first method whose weights are
        learned; writes ``signal.json`` and a picture of it.

        Raises:
            UsageError: no method learns weights.
        """
        from hdkd_cli.study.signal import measure_signal

        entries: list[SignalEntry] = []
        for setting in self.plan.settings:
            learning = (
                resolved.settings
                for cell, resolved in self.resolved.items()
                if cell.setting == setting and resolved.settings.weights.learned
            )
            settings = next(learning, None)
            if settings is None:
                raise UsageError(f"{setting}: no method of the plan learns weights")
            entries += measure_signal(setting, settings, self.note)
        record = Signal(entries=tuple(entries))
        write_json(self.folder / "signal.json", record.as_record())
        self._try(lambda: draw_signal(self.folder, record))
        return record

    def estimate(self) -> StudyEstimate:
        """How long every run takes: from finished runs, else from a few steps of each method."""
        seconds: dict[tuple[str, str], float] = {}
        for row in self.rows():
            seconds.setdefault((row.setting, row.method), row.seconds)
        runs = []
        for cell in self.cells:
            kind = (cell.setting, cell.method)
            if kind not in seconds:
                self.note(f"timing {TRIAL_STEPS} steps of {cell.setting}, {cell.method}")
                seconds[kind] = self._trial_seconds(cell)
            state = (
                "done" if self._row(cell) is not None
                else "begun" if (self.runs / cell.name).exists()
                else "missing"
            )  # fmt: skip
            runs.append(RunEstimate(run=cell.name, state=state, hours=seconds[kind] / 3600))
        missing = sum(run.hours for run in runs if run.state != "done")
        return StudyEstimate(runs=tuple(runs), missing_hours=missing)

    def _trial_seconds(self, cell: Cell) -> float:
        """Seconds that all steps of a run take, from the speed of its first ones."""
        with tempfile.TemporaryDirectory() as scratch:
            workers = Workers(Path(scratch), Path(scratch), self.flags)
            settings = self.resolved[cell].settings
            if self.plan.methods[cell.method].replay is not None:  # that run is not there yet
                settings = _changed(settings, "weights", replay=None)
            short = _changed(
                settings, "training", max_steps=TRIAL_STEPS, log_every=TRIAL_STEPS // 3
            )
            workers.make(cell, Resolved(short, {}, []), ())
            log = RunFolder.open(Path(scratch) / cell.name).metrics
            events = list(read_metrics(log))
        speeds = [event["images_per_s"] for event in events if event["event"] == "step"]
        steps = steps_in_all(settings, events[0])
        return float(steps * settings.training.batch_size / speeds[-1])


def steps_in_all(settings: Settings, started: Mapping[str, Any]) -> int:
    """Steps of a whole run by its ``run_started`` line, those of its continuations among them."""
    steps = int(started["steps_per_epoch"] * settings.training.epochs)
    if settings.weights.by_continuations:
        terms = [Term(**term) for term in started["terms"]]
        steps += steps_of_rounds(settings.weights, terms, steps)
    return steps


def _changed(settings: Settings, section: str, **values: object) -> Settings:
    part = getattr(settings, section).model_copy(update=values)
    return settings.model_copy(update={section: part})


def _as_arithmetic_of(row: StudyRow, settings: Settings) -> Settings:
    """``settings`` with the arithmetic of a finished run in the place of what they leave open."""
    training = settings.training
    wanted: dict[str, object] = {}
    if training.precision == "auto":
        wanted["precision"] = row.precision
    if training.channels_last is None:
        wanted["channels_last"] = row.channels_last
    return _changed(settings, "training", **wanted)
