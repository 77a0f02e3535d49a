"""Write docs/reference/{cli,settings,records,python}.md and the table of own choices in
docs/concepts/method.md from the code.

    python scripts/build_reference.py            # make reference
    python scripts/build_reference.py --check    # make docs-check: exit code 1 if a page is stale
"""

from __future__ import annotations

import sys
from pathlib import Path

from reference_pages.cli import cli_page
from reference_pages.python import python_page
from reference_pages.records import records_page
from reference_pages.settings import own_choices, settings_page

ROOT = Path(__file__).resolve().parents[1]
BEGIN = "<!-- made by scripts/build_reference.py; do not edit -->"
END = "<!-- end of what scripts/build_reference.py makes -->"


def main(arguments: list[str]) -> int:
    """Write or check the pages; return the exit code."""
    stale = [
        (path, text)
        for path, text in pages().items()
        if not path.exists() or path.read_text() != text
    ]
    for path, text in stale:
        name = path.relative_to(ROOT)
        if arguments == ["--check"]:
            sys.stderr.write(f"{name} is stale: run make reference\n")
        else:
            path.write_text(text)
            sys.stdout.write(f"{name}\n")
    return int(arguments == ["--check"] and bool(stale))


def pages() -> dict[Path, str]:
    """Every generated page, as it should be."""
    made = {
        "cli": cli_page(),
        "settings": settings_page(),
        "records": records_page(),
        "python": python_page(),
    }
    reference, method = ROOT / "docs" / "reference", ROOT / "docs" / "concepts" / "method.md"
    texts = {reference / f"{name}.md": f"{BEGIN}\n\n{text}" for name, text in made.items()}
    before, _, rest = method.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    texts[method] = f"{before}{BEGIN}\n\n{own_choices()}\n{END}{after}"
    return texts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
