"""Markdown pages, as far as the tests of documents read them: prose, table cells, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Block", "Page", "pages", "sentences", "words"]

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
_ITEM = re.compile(r"^\s*([-*+]|\d+\.) ")
_INDENTED = re.compile(r"^( {4}|\t)")
_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LINK = re.compile(r"!?\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]*)\)")
_ROLE = re.compile(r"\{[\w:]+\}`[^`]*`")
_END = re.compile(r"(?<=[.?!])[\"*)]*\s+")


@dataclass(frozen=True)
class Block:
    """A paragraph, an item of a list, a heading or the cell of a table.

    :ivar line: the number of its first line.
    :ivar text: its text, in one line.
    :ivar kind: ``prose``, ``cell`` or ``heading``.
    """

    line: int
    text: str
    kind: str = "prose"


@dataclass(frozen=True)
class Page:
    """One file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    def numbered(self) -> Iterator[tuple[int, str]]:
        """Yield the lines outside of code blocks, with their numbers."""
        fence = ""
        before_blank, in_list, in_code = True, False, False
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), 1):
            found = _FENCE.match(line)
            if fence or found:
                fence = _next_fence(fence, found)
                continue
            if line.strip():
                in_list = bool(_ITEM.match(line)) or (in_list and line.startswith(" "))
                in_code = bool(_INDENTED.match(line)) and not in_list and (before_blank or in_code)
            before_blank = not line.strip()
            if not in_code:
                yield number, line

    def blocks(self) -> Iterator[Block]:
        """Yield everything that is read as text."""
        start, parts = 0, list[str]()
        for number, line in [*self.numbered(), (0, "")]:
            alone = line.startswith(("#", "|"))
            if parts and (alone or not line.strip() or _ITEM.match(line)):
                yield Block(start, " ".join(parts))
                parts = []
            if line.startswith("#"):
                yield Block(number, line.lstrip("# "), "heading")
            elif line.startswith("|"):
                yield from (Block(number, cell, "cell") for cell in _cells(line))
            elif line.strip():
                start = start if parts else number
                parts.append(_ITEM.sub("", line).strip())

    def anchors(self) -> set[str]:
        """Return the anchors of the headings, as GitHub and Sphinx make them."""
        return {_anchor(block.text) for block in self.blocks() if block.kind == "heading"}

    def links(self) -> Iterator[tuple[int, str]]:
        """Yield where the links lead, each with the number of its block's first line."""
        for block in self.blocks():
            for found in _LINK.finditer(_CODE.sub("", block.text)):
                yield block.line, found[2]


def pages(*patterns: str) -> list[Page]:
    """Return the pages whose paths, from the project's root, fit a pattern."""
    return [Page(path) for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def sentences(block: Block) -> list[str]:
    """Return the sentences of a block, each code span and each role as one word, and links as their text."""
    text = _COMMENT.sub(" ", block.text)
    text = _CODE.sub("code", _ROLE.sub("code", text))
    text = _LINK.sub(r"\1", text).replace("**", "").replace("<br>", ". ")
    return [sentence for sentence in _END.split(text) if sentence]


def words(sentence: str) -> int:
    """Count the words; signs that stand alone are none."""
    return sum(1 for word in sentence.split() if re.search(r"\w", word))


def _next_fence(fence: str, found: re.Match[str] | None) -> str:
    """Return the fence that is open behind a line, or "" if none is."""
    if not fence:
        return found[1] if found else ""
    return "" if found and found[1].startswith(fence) else fence


def _cells(line: str) -> list[str]:
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
    return [cell for cell in cells if cell.strip("-: ")]


def _anchor(heading: str) -> str:
    text = _LINK.sub(r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")
