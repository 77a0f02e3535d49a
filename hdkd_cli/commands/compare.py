"""``hdkd compare``: differences between runs, or methods over seeds, with their intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hdkd_cli.choices import CompareBy
from hdkd_cli.commands import options
from hdkd_cli.commands.inputs import kept_run, score_file
from hdkd_cli.ui.console import talk
from hdkd_cli.ui.output import chosen_format, emit

if TYPE_CHECKING:
    from hdkd_cli.library.kept import KeptRun
    from hdkd_cli.library.score_file import ScoreFile

COLUMNS = (
    "other", "what", "first_pct", "other_pct", "difference_pct", "low_pct", "high_pct", "seeds",
    "seeds_t_low_pct", "seeds_t_high_pct", "seeds_bootstrap_low_pct", "seeds_bootstrap_high_pct",
    "p_holm", "verdict", "verdict_over",
)  # fmt: skip


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN...", help="Run folders; differences are to the first.", show_default=False
        ),
    ] = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option(
            "--scores", metavar="FILE", help="Score file, beside runs or alone. May be repeated."
        ),
    ] = None,
    by: Annotated[
        CompareBy,
        typer.Option(
            "--by", help="What is compared: each run, or methods, whose runs are their seeds."
        ),
    ] = "run",
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            metavar="B",
            help="Mean cost: a fraction of the first run's full network (0.4) or MACs (30M). May "
            "be repeated. Default: 33 from the first exit's cost to the last's, and their mean.",
        ),
    ] = None,
    split: options.SplitOption = None,
    data_dir: options.DataDirOption = None,
    device: options.DeviceOption = None,
    batch_size: options.BatchSizeOption = None,
    form: options.FormatOption = None,
) -> None:
    """How far runs differ from the first, per exit and per budget, and whether it is noise.

    Each difference has a paired bootstrap interval over images, which tells how trained networks
    would do on other images. With --by method and several seeds it also has intervals over seeds
    (Student's t, and bootstrap), which tell how another training would do. Budgets use the policies
    that all runs have; if there are none, the geometric family of their val scores. A static
    network is compared with what those reach at its cost. Default split: test.
    """
    from hdkd_cli.evaluation.compare import brief
    from hdkd_cli.library.compare import compare as compare_sources

    sources: list[KeptRun | ScoreFile] = [
        *(
            kept_run(name, data_dir=data_dir, device=device, batch_size=batch_size)
            for name in runs or ()
        ),
        *(score_file(path) for path in scores or ()),
    ]
    record = compare_sources(
        sources, by=by, budgets=budget or (), split=split, note=talk.note, warn=talk.warning
    )
    if chosen_format(form) == "table":
        record = brief(record)
    emit(record, form, columns=COLUMNS)
