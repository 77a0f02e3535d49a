"""The pictures of a study: accuracy within budgets, and the weights that were learned.

S seeds, B budgets, R records of a run's log, T terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from hdkd_cli.errors import UsageError
from hdkd_cli.files import atomic_path
from hdkd_cli.records.study import Study
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.study.compare import learned_weights

STYLES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 4)))
"""Of the seeds' lines."""


def draw(folder: Path, record: Study, runs: Path) -> list[Path]:
    """``budgets-<setting>.png``, and ``weights-<setting>-<method>.png`` for every learned method.

    Raises:
        UsageError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(
            "no pictures: matplotlib is missing", hint="pip install 'hdkd[plots]'"
        ) from None

    def save(figure: Figure, name: str) -> Path:
        path = folder / name
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)
        return path

    written = []
    for setting in dict.fromkeys(row.setting for row in record.runs):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        _draw_budgets(figure.subplots(1, 2, sharey=True), record, setting)
        written.append(save(figure, f"budgets-{setting}.png"))
    for setting, method in dict.fromkeys((w.setting, w.method) for w in record.weights):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        _draw_weights(figure.subplots(1, 2), record, runs, setting, method)
        written.append(save(figure, f"weights-{setting}-{method}.png"))
    return written


def _draw_budgets(panels: Sequence[Any], record: Study, setting: str) -> None:
    """Mean accuracy at each budget, exits each for themselves and combined.

    Over the seeds that all methods have, for seeds differ more than methods do.
    """
    rows = [row for row in record.runs if row.setting == setting]
    methods = list(dict.fromkeys(row.method for row in rows))
    seeds = set.intersection(*({r.seed for r in rows if r.method == m} for m in methods))
    for panel, kind in zip(panels, ("single", "combined"), strict=True):
        for place, method in enumerate(methods):
            own_SB = [
                getattr(row, f"{kind}_top1_pct")
                for row in rows
                if row.method == method and (row.seed in seeds or not seeds)
            ]
            mean_B = np.array(own_SB, np.float64).mean(axis=0)  # None becomes NaN: not drawn
            panel.plot(rows[0].budgets, mean_B, "o-", color=f"C{place % 10}",
                       markersize=3, linewidth=1, label=f"{method} ({len(own_SB)})")  # fmt: skip
        panel.set(title=f"exits {kind}", xlabel="mean cost / full network")
    panels[0].set_ylabel("top-1 (%)")
    panels[1].legend(
        frameon=False,
        fontsize="small",
        title="method (seeds)",
        loc="upper left",
        bbox_to_anchor=(1, 1),
    )  # beside the lines, not over them


def _draw_weights(
    panels: Sequence[Any], record: Study, runs: Path, setting: str, method: str
) -> None:
    """All seeds' weights over each other, one panel per kind of term."""
    from matplotlib.ticker import AutoLocator, LogLocator, NullLocator

    seeds = [row.seed for row in record.runs if (row.setting, row.method) == (setting, method)]
    for style, seed in zip(cycle(STYLES), seeds, strict=False):
        run = RunFolder.open(runs / f"{setting}-{method}-s{seed}")
        steps_R, weights_RT, kinds = learned_weights(run)
        for panel, kind in zip(panels, sorted(set(kinds), reverse=True), strict=False):
            members = [t for t, name in enumerate(kinds) if name == kind]
            for place, t in enumerate(members):
                label = f"seed {seed}" if place == 0 else None
                panel.plot(steps_R, weights_RT[:, t], linestyle=style, color=f"C{place % 10}",
                           linewidth=1, label=label)  # fmt: skip
            panel.set(title=kind, xlabel="step", ylabel="weight", yscale="log")
    for panel in panels:  # 1.1 and 0.2, not 10⁰ and 2 × 10⁻¹
        low, high = panel.get_ylim()
        wide = high > 3 * low
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else AutoLocator())
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_locator(NullLocator())
    panels[0].legend(frameon=False)
