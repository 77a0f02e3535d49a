"""Records on stdout: a table for people; JSON, JSON lines or CSV for programs.

Records are those of ``records``. Of one that holds rows, tables, JSON lines and CSV show the
rows, JSON the whole record. Rows made for a person alone may be plain mappings.
"""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdkd_cli.choices import OutputFormat
from hdkd_cli.ui.console import visible

if TYPE_CHECKING:
    from hdkd_cli.records.base import Record

Row = Mapping[str, Any]

# What JSON need not escape and a terminal obeys: C1 controls, line separators, marks that turn the
# direction of text; and halves of characters, which stand for bytes of names that are no text.
_UNREADABLE = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def emit(
    records: Record | Row | Iterable[Record] | Iterable[Row],
    form: OutputFormat | None = None,
    *,
    columns: Sequence[str] = (),
    piped: OutputFormat = "json",
) -> None:
    """Write a record, or several, to stdout.

    Args:
        records: One record or any number of them; JSON lines are written as they come.
        form: How; None: ``table`` on a terminal, ``piped`` elsewhere.
        columns: What a table shows, in this order; empty: everything. Programs get everything.
        piped: Format for a pipe if ``form`` is None.

    Raises:
        OSError: stdout cannot take it (a full disk, a reader that went away).
    """
    form = chosen_format(form, piped)
    # Loads pydantic, which `hdkd --help` need not wait for.
    from hdkd_cli.records.base import Record

    whole: Row | None = None
    rows: str | None = None
    inner: Iterable[Row]
    if isinstance(records, Record):
        whole, rows = records.as_record(), records.rows
        inner = [whole] if rows is None else whole[rows]
    elif isinstance(records, Mapping):
        whole, inner = records, [records]
    else:
        inner = (r.as_record() if isinstance(r, Record) else r for r in records)
    match form:
        case "json":
            sys.stdout.write(_json(list(inner) if whole is None else whole, indent=2) + "\n")
        case "jsonl":
            for record in inner:
                sys.stdout.write(_json(record) + "\n")
        case "csv":
            _write_csv(inner)
        case "table" if whole is not None and rows is None:
            _write_table([{"": key, " ": value} for key, value in whole.items()])
        case "table":
            head = whole or {}
            _write_table(inner, columns, {k: v for k, v in head.items() if k != rows})


def chosen_format(form: OutputFormat | None, piped: OutputFormat = "json") -> OutputFormat:
    """``form``; None: ``table`` on a terminal, ``piped`` elsewhere."""
    return form or ("table" if sys.stdout.isatty() else piped)


def _json(value: Any, indent: int | None = None) -> str:
    """``value`` as JSON: letters of any script as they are, where stdout can hold them."""
    text = json.dumps(plain(value), indent=indent, allow_nan=False, ensure_ascii=False)
    text = _UNREADABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(plain(value), indent=indent, allow_nan=False)
    return text


def plain(value: Any) -> Any:
    """``value`` as JSON knows it: lists, text keys, and null for what is no finite number."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def to_columns(record: Row) -> dict[str, Any]:
    """``record`` in one level: lists become ``name_1``, ``name_2``.., mappings ``name_key``."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        for suffix, inner in _parts(value):
            flat[name + suffix] = inner
    return flat


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        members: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple):
        members = enumerate(value, start=1)
    else:
        yield "", value
        return
    for name, member in members:
        for suffix, inner in _parts(member):
            yield f"_{name}{suffix}", inner


def _write_csv(records: Iterable[Row]) -> None:
    lines = [to_columns(plain(record)) for record in records]
    names = list(dict.fromkeys(chain.from_iterable(lines)))
    writer = csv.writer(_Lines())
    writer.writerow(names)
    for line in lines:
        writer.writerow([_csv_cell(line.get(name)) for name in names])


class _Lines:
    """Ends CSV lines as Unix does. (A csv.writer told to do so leaves a lone CR unquoted.)"""

    def write(self, line: str) -> None:
        sys.stdout.write(line.removesuffix("\r\n") + "\n")


def _csv_cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, bool) else value


def _write_table(
    records: Iterable[Row], columns: Sequence[str] = (), head: Row | None = None
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    records = list(records)
    names = list(columns) or list(dict.fromkeys(chain.from_iterable(records)))
    if columns and records:  # what is unknown everywhere needs no room
        names = [n for n in names if any(record.get(n) is not None for record in records)]
    table = Table(box=box.SIMPLE_HEAD, show_header=any(name.strip() for name in names))
    for name in names:
        numbers = [r[name] for r in records if r.get(name) is not None]
        right = bool(numbers) and all(isinstance(n, int | float) for n in numbers)
        table.add_column(visible(name), justify="right" if right else "left")
    for record in records:
        table.add_row(*(cell(record.get(name), name) for name in names))
    # A file has no width: nothing is cut off or wrapped there.
    width = None if sys.stdout.isatty() else 10_000
    console = Console(
        file=sys.stdout, width=width, markup=False, highlight=False, emoji=False, soft_wrap=True
    )
    head = {k: v for k, v in (head or {}).items() if k != "schema" and not _holds_rows(v)}
    parts = {name: value for name, value in head.items() if value and isinstance(value, Mapping)}
    for name, value in head.items():
        if name not in parts:
            console.print(f"{visible(name)}: {cell(value, name)}")
    console.print(table)
    for name, part in parts.items():
        _write_table(_as_list(name, part))


def _as_list(name: str, part: Row) -> list[Row]:
    """``part`` as rows, one per key; mappings in it are columns beside it, for they are alike."""
    inner = {key: value for key, value in part.items() if isinstance(value, Mapping)}
    columns = {name: {k: v for k, v in part.items() if k not in inner}, **inner}
    return [
        {
            "": key,
            **{c: cell(values[key], key) if key in values else "" for c, values in columns.items()},
        }
        for key in dict.fromkeys(chain.from_iterable(columns.values()))
    ]


def _holds_rows(value: Any) -> bool:
    """Whether ``value`` would need a table of its own, or is an empty list."""
    return isinstance(value, list | tuple) and all(isinstance(one, Mapping) for one in value)


def cell(value: Any, name: str = "") -> str:
    """``value`` for a person; ``name`` tells its unit."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int() | float() if name.endswith(("macs", "macs_eager", "ops")):
            return f"{value / 1e6:,.2f} M"
        case float() if name.endswith("_share"):
            return f"{100 * value:.1f}"
        case int():
            return f"{value:,}" if abs(value) >= 10_000 else str(value)
        case float() if 10_000 <= abs(value) < 1e15:
            return f"{value:,.0f}"
        case float():
            return f"{value:.2f}" if name.endswith("_pct") else f"{value:.4g}"
        case Mapping():
            return ", ".join(f"{key} {cell(inner, str(key))}" for key, inner in value.items())
        case list() | tuple():
            return " ".join(cell(inner, name) for inner in value)
        case _:
            return visible(str(value))
