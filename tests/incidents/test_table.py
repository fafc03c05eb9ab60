"""The table of incidents in ``docs/security.md``: what it promises is there."""

from __future__ import annotations

import ast
import pkgutil
import re
import unittest
from importlib import import_module
from pathlib import Path

from tests import incidents

_DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
_TEST = re.compile(r"`(tests\.[\w.]+)`")


class Table(unittest.TestCase):
    def setUp(self) -> None:
        section = _DOCUMENT.read_text(encoding="utf-8").partition("## 3.")[2].partition("## 4.")[0]
        lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
        self.rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
        self.named = {name for row in self.rows for name in _TEST.findall(row[-1])}

    def test_every_row_names_tests(self) -> None:
        """Each row has its four cells, and the last one names at least one test."""
        self.assertGreater(len(self.rows), 25)
        for row in self.rows:
            with self.subTest(row=row[0]):
                self.assertEqual(len(row), 4)
                self.assertTrue(_TEST.findall(row[3]))

    def test_every_test_exists(self) -> None:
        """Each name leads to a test that ``python -m unittest`` or ``scripts/integration`` runs."""
        for name in sorted(self.named):
            with self.subTest(name=name):
                if name.startswith("tests.integration."):  # it may need packages that are not installed
                    self.assertTrue(_is_defined(name))
                    continue
                loader = unittest.TestLoader()
                self.assertGreater(loader.loadTestsFromName(name).countTestCases(), 0)
                self.assertEqual(loader.errors, [])

    def test_every_incident_is_named(self) -> None:
        """Each test class of this package stands in the table, or one of its tests does."""
        for module in pkgutil.iter_modules(incidents.__path__, f"{incidents.__name__}."):
            if module.name in (__name__, f"{incidents.__name__}.attacks"):
                continue
            for kind in vars(import_module(module.name)).values():
                if isinstance(kind, type) and kind.__module__ == module.name and _has_tests(kind):
                    name = f"{module.name}.{kind.__name__}"
                    with self.subTest(name=name):
                        self.assertTrue(
                            any(each == name or each.startswith(f"{name}.") for each in self.named)
                        )


def _is_defined(name: str) -> bool:
    """Whether a module of tests/integration, or a class or a test in it, is in the source."""
    _, folder, module, *inner = name.split(".")
    path = _DOCUMENT.parents[1].joinpath("tests", folder, f"{module}.py")
    node: ast.AST | None = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else None
    for wanted in inner:
        node = next((each for each in getattr(node, "body", ()) if getattr(each, "name", "") == wanted), None)
    return node is not None


def _has_tests(kind: type) -> bool:
    return issubclass(kind, unittest.TestCase) and bool(unittest.TestLoader().getTestCaseNames(kind))
