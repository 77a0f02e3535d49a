"""Write the README's section "Performance" from the records in results/.

    python benchmarks/readme.py

tests/test_readme.py compares the section with what this makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from claims import READERS, Record, findings, records

from hdkd_cli.files import write_text

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN = "<!-- made by benchmarks/readme.py from benchmarks/results; do not edit -->"
END = "<!-- end of what benchmarks/readme.py makes -->"


def section(found: Mapping[str, Record]) -> str:
    """What stands between the two marks."""
    return "\n".join(
        [
            "Median (smallest to largest) over rounds in which what is compared takes turns; bytes "
            "are counted,\nnot timed. A target is met if the median meets it.",
            "",
            "| claim | measured | target | |",
            "|---|---|---|---|",
            *(f"| {' | '.join(finding.cells())} |" for finding in findings(found)),
            "",
            *_origins(found),
        ]
    )


def _origins(found: Mapping[str, Record]) -> Iterator[str]:
    """Where each record was measured, and what is missing."""
    for name, record in found.items():
        yield f"- `{name}`: {_machine(record)}"
    missing = [f"`benchmarks/{name}.py`" for name in READERS if name not in found]
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


def replaced(text: str, made: str) -> str:
    """``text`` with ``made`` between the marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def rewrite() -> None:
    """Bring the README up to date."""
    write_text(README, replaced(README.read_text(), section(records())))


if __name__ == "__main__":
    rewrite()
