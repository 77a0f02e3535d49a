"""The methods: which settings each stands for, and what a run is called by its settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hdkd_cli.settings.keys import leaves
from hdkd_cli.settings.schema import ObjectiveSettings, Settings

_T = ObjectiveSettings().temperature
# `method = "…"` stands for these settings (docs/concepts/method.md, section 4).
METHODS: dict[str, dict[str, dict[str, Any]]] = {
    name: {
        "model": {"static": static},
        "objective": {
            "teachers": teachers,
            "temperature": temperature,
            "temperature_growth": growth,
            "gradient_surgery": surgery,
        },
        "weights": {"learned": learned, "init": init},
    }
    for name, static, teachers, temperature, growth, surgery, learned, init in (
        ("joint", False, "none", _T, None, "off", False, "balanced"),
        ("dbt", False, "last", 1.0, 1.05, "off", False, "dbt"),
        ("naive-dkd", False, "later", _T, None, "off", False, "balanced"),
        ("half-dkd", False, "later", _T, None, "off", False, "halved"),
        ("ensemble", False, "ensemble", _T, None, "off", False, "balanced"),
        ("pcgrad", False, "none", _T, None, "pcgrad", False, "balanced"),
        ("hmsdnet", False, "none", _T, None, "off", True, "balanced"),
        ("hdbt", False, "last", _T, None, "off", True, "balanced"),
        ("hdkd", False, "later", _T, None, "off", True, "balanced"),
        ("static", True, "none", _T, None, "off", False, "uniform"),
    )
}

HOW_IT_RUNS = frozenset(
    {
        *("training.device", "training.max_minutes", "data.root", "data.workers"),
        *("data.cache", "data.check"),
        *("training.log_every", "training.checkpoint_every"),
        *("training.keep_checkpoints", "training.keep_every"),
    }
)
"""What a run runs on, how long at a time and what it keeps: nothing of what it comes to."""

# Runs that differ in these alone are the same experiment.
_NOT_THE_EXPERIMENT = HOW_IT_RUNS | {"training.seed", "data.download"}


def method_of(settings: Settings) -> str:
    """The name of the method that ``settings`` follow; ``custom`` if it has none."""
    values = leaves(settings)
    for name, sections in METHODS.items():
        wanted = {
            f"{s}.{f}": value for s, fields in sections.items() for f, value in fields.items()
        }
        if wanted.items() <= values.items():
            return name
    return "custom"


def method_names(settings: Sequence[Settings]) -> list[str]:
    """A name for each run, equal for runs that differ in nothing but the seed.

    Where settings other than the method's set runs of one method apart, the name says them.
    """
    values = [
        {k: v for k, v in leaves(one).items() if k not in _NOT_THE_EXPERIMENT} for one in settings
    ]
    methods = [method_of(one) for one in settings]
    names = []
    for method, own in zip(methods, values, strict=True):
        alike = [v for m, v in zip(methods, values, strict=True) if m == method]
        apart = sorted(
            key for key in set().union(*alike) if len({repr(other.get(key)) for other in alike}) > 1
        )
        said = ", ".join(f"{key}={own[key]}" for key in apart if key in own)
        names.append(f"{method} ({said})" if said else method)
    return names
