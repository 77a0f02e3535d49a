"""What was probably meant by an option that a verb does not have."""

from __future__ import annotations


def on_option(option: str, verb: str) -> str | None:
    """What to write instead, as a sentence; None if there is no telling.

    Args:
        option: What was written, such as ``--lr``.
        verb: The verb it was given to.
    """
    if verb == "eval-budget" and option == "--budget":
        return "A policy holds its budgets: `hdkd calibrate-thresholds RUN --budget B` makes one."
    if verb not in {"train", "show"}:
        return None
    from hdkd_cli.settings.keys import closest, leaves
    from hdkd_cli.settings.methods import METHODS
    from hdkd_cli.settings.schema import Settings

    name = option.lstrip("-").replace("-", "_").replace("__", ".")
    if name == "method":
        return f"Use --set method=NAME: {', '.join(METHODS)}."
    near = sorted(closest(name, leaves(Settings())), key=lambda key: key.startswith("weights."))
    return f"Use --set {' or --set '.join(f'{key}=VALUE' for key in near)}." if near else None
