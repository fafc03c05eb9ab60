"""Writes tables into pages. ``python -m benchmark.pages PAGE NAME`` takes them from its input."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Sequence
from importlib.metadata import version

from .report import Header

__all__ = ["write_between"]


def _wrapped(line: str) -> list[str]:
    """Return a line as those of a page, which have no more than 100 characters outside of tables."""
    if not line or line.startswith("|"):
        return [line]
    return textwrap.wrap(line, 99, subsequent_indent="  " * line.startswith("- "), break_on_hyphens=False)


def write_between(path: str, name: str, lines: Sequence[str]) -> None:
    """Replace what stands between two marks in a page.

    :raises SystemExit: if the page has no such marks.
    """
    with open(path, encoding="utf-8") as file:
        text = file.read()
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    pattern = re.compile(f"({re.escape(begin)}\n).*?({re.escape(end)})", re.DOTALL)
    body = "\n".join(["", *(part for line in lines for part in _wrapped(line)), "", ""])
    changed, count = pattern.subn(lambda found: found[1] + body + found[2], text)
    if not count:
        raise SystemExit(f"{path} does not have the lines {begin} and {end}")
    with open(path, "w", encoding="utf-8") as file:
        file.write(changed)


def _main(page: str, name: str) -> int:
    lines = sys.stdin.read().splitlines()
    versions = [f"Python {sys.version.split()[0]}", f"redis-py {version('redis')}"]
    machine = Header(1, 0.0, False, versions, []).machine()
    write_between(page, name, [*(f"- {each}" for each in machine), "", *lines])
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
