"""Test packages that run only when they are named."""

from __future__ import annotations

import pkgutil
import unittest
from collections.abc import Callable, Iterable

__all__ = ["loader_when_named"]


def loader_when_named(
    package: str, path: Iterable[str]
) -> Callable[[unittest.TestLoader, unittest.TestSuite, str | None], unittest.TestSuite]:
    """Return a package's ``load_tests``: every module if it was named, nothing if discovery came by.

    Discovery, ``python -m unittest`` without names, is told from naming by its pattern.

    :param package: ``__name__`` of the package.
    :param path: its ``__path__``.
    """

    def load_tests(
        loader: unittest.TestLoader, standard_tests: unittest.TestSuite, pattern: str | None
    ) -> unittest.TestSuite:
        if pattern is None:
            for module in pkgutil.iter_modules(path):
                if module.name.startswith("test_"):
                    standard_tests.addTests(loader.loadTestsFromName(f"{package}.{module.name}"))
        return standard_tests

    return load_tests
