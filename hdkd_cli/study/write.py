"""The files of a study: rows, differences and a table to read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from hdkd_cli.files import write_json, write_text
from hdkd_cli.records.study import Contrast, Overall, Study, StudyRow
from hdkd_cli.study.compare import MEAN, quantities
from hdkd_cli.study.plan import Plan


def write_study(folder: Path, plan: Plan, record: Study) -> None:
    """Write ``study.json``, ``study.csv`` and ``study.md``; each is whole at every moment."""
    write_json(folder / "study.json", record.as_record())
    write_text(folder / "study.csv", csv_text(record.runs))
    write_text(folder / "study.md", markdown(plan, record))


def csv_text(rows: Iterable[StudyRow]) -> str:
    """One line per run; the exits and budgets have a column each."""
    lines = [_flat(row) for row in rows]
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _flat(row: StudyRow) -> dict[str, object]:
    values = row.model_dump()
    budgets = values.pop("budgets")
    flat: dict[str, object] = {}
    for name, value in values.items():
        if name in ("single_top1_pct", "combined_top1_pct"):
            flat |= {f"{name}@{b:g}": _short(v, 3) for b, v in zip(budgets, value, strict=True)}
        elif isinstance(value, tuple):
            flat |= {f"{name}_{k}": _short(v) for k, v in enumerate(value, start=1)}
        else:
            flat[name] = _short(value)
    return flat


def _short(value: object, digits: int = 4) -> object:
    return round(value, digits) if isinstance(value, float) else value


def markdown(plan: Plan, record: Study) -> str:
    """The tables: means per method, and differences with their intervals."""
    parts = []
    for setting in plan.settings:
        rows = [row for row in record.runs if row.setting == setting]
        if rows:
            parts += [f"## {setting}\n", *_means(plan, rows)]
        for reference in plan.study.references:
            these = [
                c for c in record.contrasts if (c.setting, c.reference) == (setting, reference)
            ]
            if these:
                parts += ["", *_differences(reference, these)]
        parts.append("")
    if record.overall:
        parts += ["## All settings\n", *_overall(record.overall), ""]
    if record.weights:
        parts += [
            "## Learned weights\n",
            "Correlation between seeds of the log-weights' deviations from the mean of their kind, "
            "and of all terms.\n",
            "| setting | method | pairs of seeds | within kinds | of all | common factor (%) |",
            "|---|---|---|---|---|---|",
            *(
                f"| {w.setting} | {w.method} | {w.pairs} | {_signed(w.correlation)} "
                f"| {_signed(w.correlation_all)} | {w.common_pct:.0f} |"
                for w in record.weights
            ),
            "",
        ]
    if record.failed:
        parts += ["## Failed\n", *(f"- {name}: {why}" for name, why in record.failed.items()), ""]
    return "\n".join(parts)


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def _means(plan: Plan, rows: Sequence[StudyRow]) -> list[str]:
    split, samples = rows[0].split, rows[0].samples
    names = list(dict.fromkeys(name for row in rows for name in quantities(row)))
    lines = [
        f"Top-1 in %, mean over seeds, {samples:,} {split} images; `combined B`: exits combined by "
        "their mean, within a mean cost of B of the full network.\n",
        f"| method | seeds | {' | '.join(names)} | hours |",
        "|---|---|" + "---|" * (len(names) + 1),
    ]
    for method in plan.methods:
        own = [row for row in rows if row.method == method]
        if own:
            found = [quantities(row) for row in own]
            numbers = " | ".join(_mean([row.get(name) for row in found]) for name in names)
            hours = sum(row.seconds for row in own) / 3600
            lines.append(f"| {method} | {len(own)} | {numbers} | {hours:.1f} |")
    return lines


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.2f}" if len(known) == len(values) else "–"


def _differences(reference: str, contrasts: Sequence[Contrast]) -> list[str]:
    methods = len({c.method for c in contrasts})
    lines = [
        f"Difference to `{reference}` in points, paired by seed: mean (95 % t interval; bootstrap "
        f"over seeds). {methods} methods are compared: p is adjusted for that (Holm).\n",
        f"| method | seeds | {MEAN} over exits | bootstrap | p | worst exit | worst combined |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in dict.fromkeys(c.method for c in contrasts):
        own = {c.quantity: c for c in contrasts if c.method == method}
        mean = own[MEAN]
        interval = boots = p = "–"
        if mean.t_low is not None and mean.bootstrap_low is not None and mean.p_holm is not None:
            interval = f"({mean.t_low:+.2f} to {mean.t_high:+.2f})"
            boots = f"{mean.bootstrap_low:+.2f} to {mean.bootstrap_high:+.2f}"
            p = _p(mean.p_holm)
        worst = [_worst(c for q, c in own.items() if q.startswith(w)) for w in ("exit", "combined")]
        lines.append(
            f"| {method} | {mean.seeds} | {mean.value:+.2f} {interval} | {boots} | {p} | "
            + " | ".join(worst)
            + " |"
        )
    return lines


def _overall(entries: Sequence[Overall]) -> list[str]:
    count = entries[0].settings
    lines = [
        f"Mean over {count} settings of the differences in points, each setting counting alike "
        "(95 % t interval over seeds; p as above).\n",
        f"| method | reference | pairs of runs | {MEAN} over exits | p | worst exit "
        "| worst combined |",
        "|---|---|---|---|---|---|---|",
    ]
    for reference, method in dict.fromkeys((e.reference, e.method) for e in entries):
        own = {e.quantity: e for e in entries if (e.reference, e.method) == (reference, method)}
        mean = own[MEAN]
        interval = "–" if mean.t_low is None else f"({mean.t_low:+.2f} to {mean.t_high:+.2f})"
        p = "–" if mean.p_holm is None else _p(mean.p_holm)
        worst = [_worst(e for q, e in own.items() if q.startswith(w)) for w in ("exit", "combined")]
        lines.append(
            f"| {method} | {reference} | {mean.seeds} | {mean.value:+.2f} {interval} | {p} | "
            f"{' | '.join(worst)} |"
        )
    return lines


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _worst(contrasts: Iterable[Contrast | Overall]) -> str:
    worst = min(contrasts, key=lambda c: c.value, default=None)
    return f"{worst.value:+.2f} ({worst.quantity})" if worst else "–"
