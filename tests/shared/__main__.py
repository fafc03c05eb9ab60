"""Makes the table: ``scripts/one-truth``. It fails if a column does not show what one process shows."""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import closing

from tests.shared.columns import COLUMNS, Column, GunicornMemory
from tests.shared.rows import ROWS, Row, Seen, fault_without_store

__all__ = ["main"]

_DOES_NOT_START = Seen("does not start", False)

Cells = dict[tuple[str, str], Seen]


def main(arguments: Sequence[str] | None = None) -> int:
    """Look at the columns and print the table; return 0 if all is as with one process."""
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # so that all that was started is ended
    columns = [one for one in COLUMNS if _is_chosen(one.title, options.column)]
    rows = [row for row in ROWS if _is_chosen(row.key, options.row)]
    cells: Cells = {}
    for column in columns:
        started = time.monotonic()
        for row, seen in _look(column, rows, store=not options.without_store).items():
            cells[column.title, row] = seen
        print(f"{column.title}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    print(_table(columns, rows, cells))
    good = all(seen.good for seen in cells.values())
    if options.column is None and options.row is None and not options.without_store:
        with closing(GunicornMemory()) as memory:
            fault = fault_without_store(memory)
        print(f"\n{memory.title}: {_cell(fault)}")
        good = good and fault.good
    return 0 if good else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/one-truth", description=__doc__)
    parser.add_argument(
        "--without-store", action="store_true", help="let each process know its own sessions only"
    )
    parser.add_argument("--column", action="append", help="only columns with this in their title")
    parser.add_argument(
        "--row", action="append", choices=[row.key for row in ROWS], help="only this row; may be repeated"
    )
    return parser.parse_args(arguments)


def _is_chosen(name: str, wanted: list[str] | None) -> bool:
    return wanted is None or any(part in name for part in wanted)


def _look(kind: type[Column], rows: Sequence[Row], *, store: bool) -> dict[str, Seen]:
    """Start a column and look at its rows; a fault of one row does not keep the others from being seen."""
    if missing := kind.missing():
        return {row.key: Seen(f"{', '.join(missing)} missing", False) for row in rows}
    try:
        column = kind(store=store)
    except (AssertionError, OSError, RuntimeError) as exc:
        print(f"{kind.title} does not start: {exc}", file=sys.stderr)
        return {row.key: _DOES_NOT_START for row in rows}
    with column:
        return {row.key: _seen(row, column) for row in rows}


def _seen(row: Row, column: Column) -> Seen:
    try:
        return row.look(column)
    except Exception as exc:  # noqa: BLE001 - shown in the table
        traceback.print_exc()
        return Seen(type(exc).__name__, False)


def _table(columns: Sequence[type[Column]], rows: Sequence[Row], cells: Cells) -> str:
    lines = ["| asked of it | " + " | ".join(column.title for column in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for row in rows:
        seen = [cells[column.title, row.key] for column in columns]
        lines.append(f"| {row.title} | " + " | ".join(_cell(one) for one in seen) + " |")
    return "\n".join(lines)


def _cell(seen: Seen) -> str:
    return seen.text if seen.good else f"**{seen.text}**"


if __name__ == "__main__":
    sys.exit(main())
