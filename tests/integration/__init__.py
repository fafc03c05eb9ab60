"""Tests against real servers and clients. They run when they are named, as ``scripts/integration`` does.

``python -m unittest`` without names leaves them out: they need programs that a bare machine does not have.
"""

from __future__ import annotations

import pkgutil
import unittest

__all__ = ["load_tests"]


def load_tests(
    loader: unittest.TestLoader, standard_tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    """Load every module of this package if it was named; nothing if discovery (with a pattern) came by."""
    if pattern is None:
        for module in pkgutil.iter_modules(__path__):
            if module.name.startswith("test_"):
                standard_tests.addTests(loader.loadTestsFromName(f"{__name__}.{module.name}"))
    return standard_tests
