"""The pictures of a study: accuracy within budgets, learned weights, what learners see.

S seeds, B budgets, R records of a run's log, T terms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from hdkd_cli.errors import UsageError
from hdkd_cli.files import atomic_path
from hdkd_cli.records.study import Signal, SignalEntry, Study
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.study.compare import learned_weights

STYLES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 4)))
"""Of the seeds' lines."""


def draw(folder: Path, record: Study, runs: Path) -> None:
    """``budgets-<setting>.png``, and ``weights-<setting>-<method>.png`` for every learned method.

    Raises:
        UsageError: matplotlib is missing.
    """
    for setting in dict.fromkeys(row.setting for row in record.runs):
        with _page(folder / f"budgets-{setting}.png", sharey=True) as panels:
            _draw_budgets(panels, record, setting)
    for setting, method in dict.fromkeys((w.setting, w.method) for w in record.weights):
        with _page(folder / f"weights-{setting}-{method}.png") as panels:
            _draw_weights(panels, record, runs, setting, method)


def draw_signal(folder: Path, record: Signal) -> None:
    """``signal-<setting>.png``: how much each candidate sees, and what it asks for.

    Raises:
        UsageError: matplotlib is missing.
    """
    for setting in dict.fromkeys(entry.setting for entry in record.entries):
        with _page(folder / f"signal-{setting}.png") as panels:
            _draw_signal(panels, [e for e in record.entries if e.setting == setting])


@contextmanager
def _page(path: Path, *, sharey: bool = False) -> Iterator[Sequence[Any]]:
    """Two panels side by side, kept at the end."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(
            "no pictures: matplotlib is missing", hint="pip install 'hdkd[plots]'"
        ) from None
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    yield figure.subplots(1, 2, sharey=sharey)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


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
        title="method (seeds)", loc="upper left", bbox_to_anchor=(1, 1),
        frameon=False, fontsize="small",
    )  # fmt: skip


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


def _draw_signal(panels: Sequence[Any], entries: Sequence[SignalEntry]) -> None:
    """Bars per moment, one per candidate: signal over noise; t values of the trade-offs."""
    moments = list(dict.fromkeys((entry.step, entry.lr) for entry in entries))
    asked = list(dict.fromkeys((e.step, name) for e in entries for name in e.t_values))
    candidates = list(dict.fromkeys(entry.candidate for entry in entries))
    width = 0.8 / len(candidates)
    for place, candidate in enumerate(candidates):
        own = [entry for entry in entries if entry.candidate == candidate]
        offset = (place + 0.5) * width - 0.4
        seen: dict[Any, float] = {(e.step, e.lr): e.signal_to_noise or 0 for e in own}
        t_values: dict[Any, float] = {
            (e.step, name): t for e in own for name, t in e.t_values.items()
        }
        for panel, groups, values in ((panels[0], moments, seen), (panels[1], asked, t_values)):
            panel.bar(
                [group + offset for group in range(len(groups))],
                [values.get(group, 0) for group in groups],
                width, color=f"C{place % 10}", label=candidate,
            )  # fmt: skip
    panels[0].set(title="signal / noise of one draw")
    panels[0].set_xticks(range(len(moments)), [f"step {step}\nlr {lr:g}" for step, lr in moments])
    panels[1].set(title="t of each trade-off: above 0 asks for less of it")
    panels[1].set_xticks(
        range(len(asked)),
        [f"step {step}\n{name.split()[-1]}" for step, name in asked],
        fontsize="small",
    )
    panels[1].axhline(0, color="k", linewidth=0.5)
    panels[0].figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center", ncols=3, frameon=False, fontsize="small",
    )  # fmt: skip
