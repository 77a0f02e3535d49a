"""A run in words: its headline, its facts, its settings and where they came from."""

from __future__ import annotations

from collections.abc import Sequence

from hdkd_cli.settings.keys import leaves
from hdkd_cli.settings.values import show
from hdkd_cli.ui.progress import duration
from hdkd_cli.ui.report.read import RunContent, printable

# Fields of records → what a reader calls them.
ANYTIME_COLUMNS = {
    "exit": "exit", "macs": "MACs", "params": "parameters", "top1_pct": "top‑1 (%)",
    "top5_pct": "top‑5 (%)", "nll": "NLL (nats)", "ece_pct": "ECE (%)", "auroc": "AUROC",
}  # fmt: skip
BUDGET_COLUMNS = {
    "target_macs": "budget", "macs": "mean MACs", "top1_pct": "top‑1 (%)",
    "exit_share": "leave at exit 1, 2, … (%)",
}  # fmt: skip


def headline(content: RunContent) -> str:
    """The run in a sentence or two."""
    if content.evaluation is None:
        return "There are no test scores yet."
    *_, full = content.evaluation.anytime["exits"]
    samples = content.evaluation.anytime["samples"]
    whole = (
        f"The full network is right about {full['top1_pct']:.2f} % of {samples:,} test images, "
        f"at {full['macs'] / 1e6:.2f} M multiply-accumulates per image."
    )
    if not content.evaluation.curves:
        return whole
    curve = content.evaluation.curves[0]
    share = 100 * curve.point["macs"] / full["macs"]
    return (
        f"{whole} Leaving early, it is right about {curve.point['top1_pct']:.2f} % at {share:.0f} %"
        f" of that cost (policy “{printable(curve.name)}”, operating point chosen without "
        "test images)."
    )


def facts(content: RunContent) -> dict[str, str]:
    """What a reader should know about a run before its numbers."""
    info, history, evaluation = content.info, content.history, content.evaluation
    found = {"folder": content.path, "status": printable(info.status)}
    for name in ("preset", "seed", "device", "created", "ended"):
        if (value := getattr(info, name)) is not None:
            found[name] = printable(str(value))
    if history is not None:
        seconds = history.seconds(content.settings.training.batch_size)
        found["training time"] = f"{duration(seconds)} (h:mm:ss, steps and evaluations)"
        found["steps"] = f"{history.step_S[-1]:,} of {history.started['total_steps']:,}"
        samples = history.started["samples"]
        found["images"] = ", ".join(f"{n:,} {role}" for role, n in samples.items() if n)
        found["parameters"] = f"{history.started['parameters']:,}"
    if evaluation is not None:
        macs = [exit_["macs"] / 1e6 for exit_ in evaluation.anytime["exits"]]
        found["multiply-accumulates"] = f"{macs[0]:.2f} M (exit 1) to {macs[-1]:.2f} M (last exit)"
    versions = {"python": info.python, **info.versions}
    found["versions"] = printable(", ".join(f"{name} {v}" for name, v in versions.items()))
    for label, text in (("platform", info.platform), ("git revision", info.git_revision)):
        if text:
            found[label] = printable(text)
    found["command"] = printable(" ".join(info.argv))
    return found


def setting_rows(content: RunContent) -> list[tuple[str, str, str]]:
    """(key, value, where it came from) of every setting."""
    origin = content.info.origin
    return [
        (key, printable(show(value)), printable(origin.get(key, "unknown")))
        for key, value in leaves(content.settings).items()
    ]


def differing_settings(runs: Sequence[RunContent]) -> list[tuple[str, ...]]:
    """(key, value in each run) of every setting that is not the same in all of them."""
    values = [{key: value for key, value, _ in setting_rows(run)} for run in runs]
    keys = dict.fromkeys(key for of_run in values for key in of_run)
    rows = [(key, *(of_run.get(key, "") for of_run in values)) for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]
