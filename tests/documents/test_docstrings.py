"""Sentences of docstrings are short, as those of pages are."""

from __future__ import annotations

import ast
import inspect
import re
import unittest
from collections.abc import Iterator

from .pages import ROOT, Block, sentences, words
from .test_prose import MOST_WORDS

_FIELD = re.compile(r"\s*:(param|ivar|returns|raises)\b[^:]*: ?")
_ROLE = re.compile(r":\w+:`[^`]*`")
_ITEM = re.compile(r"\s*([-*]|\d+\.) ")


class DocstringsTest(unittest.TestCase):
    def test_length(self) -> None:
        """No sentence of a docstring has more than twenty-five words."""
        found = 0
        for path in sorted(ROOT.glob("wsproxy/**/*.py")):
            for line, docstring in _docstrings(path.read_text(encoding="utf-8")):
                for block in _blocks(line, docstring):
                    for sentence in sentences(block):
                        found += 1
                        with self.subTest(f"{path.relative_to(ROOT)}:{line}", sentence=sentence):
                            self.assertLessEqual(words(sentence), MOST_WORDS)
        self.assertGreater(found, 5000)


def _docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield all docstrings, those of assignments included, with the numbers of their first lines."""
    for node in ast.walk(ast.parse(source)):
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.lineno, inspect.cleandoc(value.value)


def _blocks(line: int, docstring: str) -> Iterator[Block]:
    """Yield the paragraphs, fields and items of a docstring, but for its code."""
    parts: list[str] = []
    in_code = False
    for text in [*docstring.splitlines(), ""]:
        in_code = in_code and (not text or text.startswith(" "))
        if in_code:
            continue
        begins = _FIELD.match(text) or _ITEM.match(text)
        if parts and (begins or not text.strip()):
            yield Block(line, " ".join(parts))
            parts = []
        in_code = text.endswith("::")
        if text.strip():
            text = text[begins.end() :] if begins else text
            parts.append(_ROLE.sub("code", text).strip())


if __name__ == "__main__":
    unittest.main()
