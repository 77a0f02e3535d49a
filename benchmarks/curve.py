"""Draw accuracy against cost from the records of ``eval-anytime`` and ``eval-budget``.

    python benchmarks/curve.py -o curve.svg anytime.json budget.json [anytime2.json ..]

Needs the ``plots`` extra.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt

MARKS = {"hdkd/anytime/1": "o", "hdkd/budget/1": "-"}
ROWS = {"hdkd/anytime/1": "exits", "hdkd/budget/1": "points"}
NAMES = {"hdkd/anytime/1": "everybody leaves at exit k", "hdkd/budget/1": "leaving early"}


def main() -> None:
    """Read the records, draw them, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", nargs="+", type=Path)
    parser.add_argument("-o", "--output", required=True, type=Path)
    parser.add_argument("--title", default="")
    arguments = parser.parse_args()
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for path in arguments.records:
        record = json.loads(path.read_text())
        rows = sorted(record[ROWS[record["schema"]]], key=lambda row: row["macs"])
        axes.plot(
            [row["macs"] / 1e6 for row in rows],
            [row["top1_pct"] for row in rows],
            MARKS[record["schema"]],
            label=f"{path.stem.split('-')[0]}: {NAMES[record['schema']]}"
            if len(arguments.records) > 2
            else NAMES[record["schema"]],
        )
    axes.set(xlabel="mean multiply-accumulates an image (M)", ylabel="test accuracy (%)")
    axes.set_title(arguments.title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(arguments.output, dpi=150)


if __name__ == "__main__":
    main()
