"""The store in a process of its own does what every store must, and survives what happens to processes."""

from __future__ import annotations

import unittest

from .conformance import conformance
from .local import Local


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    return unittest.TestSuite([tests, conformance(loader, Local, without="test_bound")])
