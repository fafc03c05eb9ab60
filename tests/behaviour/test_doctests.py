"""The examples in docstrings and in the documentation say what happens."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import unittest
from pathlib import Path

import wsproxy

_ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```.*$", re.MULTILINE)
_NEEDS_MORE = re.compile(
    r"(__main__|\.flask|\.pytest_plugin|\.stores\.redis\..*)$"
)  # that run, or need packages


class MarkdownParser(doctest.DocTestParser):
    """Takes the fence behind an example for the end of its output."""

    def parse(self, string: str, name: str = "<string>") -> list[str | doctest.Example]:
        return super().parse(_FENCE.sub("", string), name)


def load_tests(
    loader: unittest.TestLoader, standard_tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    for found in pkgutil.walk_packages(wsproxy.__path__, "wsproxy."):
        if not _NEEDS_MORE.search(found.name):
            module = importlib.import_module(found.name)
            standard_tests.addTests(doctest.DocTestSuite(module))
    for path in [_ROOT / "README.md", *sorted((_ROOT / "docs").rglob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        if ">>> " in text:
            standard_tests.addTest(
                doctest.DocFileSuite(
                    str(path), module_relative=False, parser=MarkdownParser(), encoding="utf-8"
                )
            )
    return standard_tests
