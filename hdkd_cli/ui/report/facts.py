"""A run in words: its headline, its facts, its settings and where they came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hdkd_cli.errors import UsageError
from hdkd_cli.settings.keys import leaves
from hdkd_cli.settings.layers import resolve
from hdkd_cli.settings.schema import Settings
from hdkd_cli.settings.values import show
from hdkd_cli.ui.progress import duration
from hdkd_cli.ui.report.content import RunContent, printable

# Fields of records → what a reader calls them.
ANYTIME_COLUMNS = {
    "exit": "exit",
    "macs": "MACs",
    "params": "parameters",
    "top1_pct": "top‑1 (%)",
    "top5_pct": "top‑5 (%)",
    "nll": "NLL (nats)",
    "ece_pct": "ECE (%)",
    "auroc": "AUROC",
}
BUDGET_COLUMNS = {
    "target_macs": "budget",
    "macs": "mean MACs",
    "top1_pct": "top‑1 (%)",
    "exit_share": "leave at exit 1, 2, … (%)",
}


def facts(content: RunContent) -> dict[str, str]:
    """What a reader should know about a run before its numbers."""
    info, history, evaluation = content.info, content.history, content.evaluation
    found = {"folder": content.path, "status": str(info.get("status"))}
    for name in ("preset", "seed", "device", "created", "ended"):
        if info.get(name) is not None:
            found[name] = printable(str(info[name]))
    if history is not None:
        if history.seconds is not None:
            found["training time"] = f"{duration(history.seconds)} (h:mm:ss)"
        found["steps"] = f"{history.step_S[-1]:,} of {history.started['total_steps']:,}"
        samples = history.started["samples"]
        found["images"] = ", ".join(f"{n:,} {role}" for role, n in samples.items() if n)
        found["parameters"] = f"{history.started['parameters']:,}"
    if evaluation is not None:
        macs = [exit_["macs"] / 1e6 for exit_ in evaluation.anytime["exits"]]
        found["multiply-accumulates"] = f"{macs[0]:.2f} M (exit 1) to {macs[-1]:.2f} M (last exit)"
    versions = {"python": info.get("python"), **(info.get("versions") or {})}
    found["versions"] = printable(", ".join(f"{name} {v}" for name, v in versions.items()))
    for name, label in (("platform", "platform"), ("git_revision", "git revision")):
        if info.get(name):
            found[label] = printable(str(info[name]))
    found["command"] = printable(" ".join(map(str, info.get("argv") or ())))
    return found


def setting_rows(content: RunContent) -> list[tuple[str, str, str]]:
    """(key, value, where it came from) of every setting."""
    origin = _origin(content.settings, content.info)
    return [
        (key, printable(show(value)), printable(origin.get(key, "unknown")))
        for key, value in leaves(content.settings).items()
    ]


def headline(content: RunContent) -> str:
    """The run in a sentence or two."""
    if content.evaluation is None:
        return "There are no test scores yet."
    *_, full = content.evaluation.anytime["exits"]
    samples = content.evaluation.anytime["samples"]
    whole = (
        f"The full network is right about {full['top1_pct']:.2f} % of {samples:,} test images, "
        f"at {full['macs'] / 1e6:.2f} M multiply-accumulates an image."
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


def _origin(settings: Settings, info: Mapping[str, Any]) -> dict[str, str]:
    """Where values came from: the preset's layers where they agree with it, else the command."""
    try:
        resolved = resolve(info.get("preset"), environment={})
    except UsageError:  # the preset is gone, or was a file elsewhere
        return {}
    of_preset = leaves(resolved.settings)
    return {
        key: resolved.origin.get(key, "default")
        if key in of_preset and of_preset[key] == value
        else "given for this run"
        for key, value in leaves(settings).items()
    }
