"""Write the tables of docs/performance.md from the records in results/.

    python benchmarks/performance.py

tests/test_documents.py compares them with what this makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from claims import CLAIMS, Finding, Record, findings, records

from hdkd_cli.files import write_text

ROOT = Path(__file__).resolve().parents[1]
BEGIN = "<!-- made by benchmarks/performance.py from benchmarks/results; do not edit -->"
END = "<!-- end of what benchmarks/performance.py makes -->"
_HOW = (
    "Median (smallest to largest) over rounds in which what is compared takes turns; bytes are "
    "counted,\nnot timed. A target is met if the median meets it.\n"
)


def sections(found: Mapping[str, Record]) -> dict[str, list[str]]:
    """File → what stands between its pairs of marks."""
    claims = "\n".join([_HOW, *_table(findings(found)), "", *_origins(found)])
    return {"docs/performance.md": [claims, _memory(found["memory"])]}


def _table(rows: Sequence[Finding]) -> Iterator[str]:
    yield "| claim | measured | target | |\n|---|---|---|---|"
    yield from (f"| {' | '.join(finding.cells())} |" for finding in rows)


def _origins(found: Mapping[str, Record]) -> Iterator[str]:
    """Where each record was measured, and what is missing."""
    for name, record in found.items():
        yield f"- `{name}`: {_machine(record)}"
    missing = [f"`benchmarks/{name}.py`" for name in CLAIMS if name not in found]
    if missing:
        yield f"- not measured yet: {', '.join(missing)}"


def _machine(record: Record) -> str:
    m = record["machine"]
    trials = f"{record['trials']} rounds; " if "trials" in record else ""
    return (
        f"{trials}{record.get('device', 'cpu')}, {m['processor']}, {m['threads']} of {m['cores']} "
        f"cores ({m['vectors']}), load {m['load']:.1f} in the last minute; Python {m['python']}, "
        f"torch {m['torch']}"
    )


def _memory(record: Record) -> str:
    """P, A and what follows from them, for the networks that were counted."""
    lines = [
        "| | P (MB) | A (MB) | one rank, 64 images (GB) | a checkpoint (MB) |",
        "|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        parameters, image = row["bytes"]["parameters"], row["bytes"]["step_per_image"]
        lines.append(
            f"| `{row['net']}`, {row['image_size']} pixels | {parameters / 1e6:.1f} | "
            f"{image / 1e6:.1f} | {(4 * parameters + 64 * image) / 1e9:.2f} | "
            f"{2 * parameters / 1e6:.0f} |"
        )
    return "\n".join(lines)


def replaced(text: str, made: Sequence[str]) -> str:
    """``text`` with ``made`` between its pairs of marks, in their order."""
    before, *parts = text.split(BEGIN)
    for section, part in zip(made, parts, strict=True):
        before += f"{BEGIN}\n\n{section}\n\n{END}{part.split(END)[1]}"
    return before


def rewrite() -> None:
    """Bring the file up to date."""
    for name, made in sections(records()).items():
        write_text(ROOT / name, replaced((ROOT / name).read_text(), made))


if __name__ == "__main__":
    rewrite()
