"""How large things are: folders that a glance takes in, files and functions that are read at one go."""

from __future__ import annotations

import ast
import statistics
import unittest
from collections import Counter
from collections.abc import Iterator

from .sources import PACKAGE, sources

MOST_FILES_AT_THE_TOP = 10
MOST_FOLDERS_AT_THE_TOP = 17
MOST_FILES = 14
"""Python files of one folder."""

MOST_LINES = 400
"""Of one file."""

LONGER = {"proxy", "settings/typed"}
"""The first is one class: everything that a program may ask of a proxy. The second is generated."""

MOST_LINES_OF_A_FUNCTION = 50
MEDIAN_FUNCTION = 6
"""Lines of a function, from ``def`` to its end, with its docstring."""


def functions() -> Iterator[tuple[str, int]]:
    """Yield the name and the lines of every function, methods and those within others included."""
    for source in sources():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{source.name}:{node.name}", node.end_lineno - node.lineno + 1


class SizesTest(unittest.TestCase):
    def test_top(self) -> None:
        """The top of the package shows the architecture: a few files, and folders with names."""
        folders = [path for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"]
        self.assertLessEqual(len(folders), MOST_FOLDERS_AT_THE_TOP)
        self.assertLessEqual(len(list(PACKAGE.glob("*.py"))), MOST_FILES_AT_THE_TOP)

    def test_folders(self) -> None:
        """No folder has more files than somebody looks through."""
        for folder, count in Counter(source.path.parent for source in sources()).items():
            with self.subTest(folder.relative_to(PACKAGE).as_posix()):
                self.assertLessEqual(count, MOST_FILES)

    def test_files(self) -> None:
        """No file is longer than somebody reads at one go."""
        for source in sources():
            with self.subTest(source.name):
                lines = source.text.count("\n")
                if source.name in LONGER:
                    self.assertGreater(lines, MOST_LINES, "it needs no exception any more")
                else:
                    self.assertLessEqual(lines, MOST_LINES)

    def test_functions(self) -> None:
        """No function is longer than a screen, and most are much shorter."""
        lines = list(functions())
        self.assertEqual([name for name, count in lines if count > MOST_LINES_OF_A_FUNCTION], [])
        self.assertLessEqual(statistics.median(count for _, count in lines), MEDIAN_FUNCTION)
