"""Reading a budget: how many multiply-accumulates an image may cost on average."""

from __future__ import annotations

import re

from hdkd_cli.errors import UsageError

_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)([kmg]?)", re.IGNORECASE)
_SCALE = {"k": 1e3, "m": 1e6, "g": 1e9}


def parse_budget(text: str, full_macs: int) -> float:
    """The budget in MACs that ``text`` stands for.

    Args:
        text: A fraction of the full network's cost (``0.4``; ``1`` is the whole network), an amount
            (``500k``, ``30M``, ``1.2G``), or a whole number of MACs above 1.
        full_macs: Cost of the last exit.

    Raises:
        UsageError: it is none of these.
    """
    match = _NUMBER.fullmatch(text.strip())
    if match:
        value, suffix = float(match[1]), match[2].lower()
        if suffix and value > 0:
            return value * _SCALE[suffix]
        if not suffix and 0 < value <= 1:
            return value * full_macs
        if not suffix and value > 1 and value.is_integer():
            return value
    raise UsageError(
        f"budget {text!r}: give a fraction of the full network's MACs (0 < B <= 1), "
        "or an amount such as 500k, 30M or 1.2G",
        hint="times such as 3ms go with `hdkd calibrate` and the policies that it makes for them",
    )
