"""What every store of the shared state must do: one suite, which each store's own test file runs.

A store's test file has a :class:`.Harness` for the store, and::

    def load_tests(loader, tests, pattern):
        return conformance(loader, MyHarness)
"""

from __future__ import annotations

import unittest

from .case import Harness, StoreCase
from .consoles import Contests, HoldOff, Marks, Waiting
from .copies import Copies
from .limits import Inheritance, Limits
from .members import Epochs, Leases, Publications
from .messages import Messages
from .opened import Opened
from .operator import Failures, Operator
from .revocations import Revocations
from .tickets import Tickets

__all__ = ["CASES", "Harness", "conformance"]

CASES: tuple[type[StoreCase], ...] = (
    Contests, Copies, Epochs, Failures, HoldOff, Inheritance, Leases, Limits, Marks, Messages, Opened,
    Operator, Publications, Revocations, Tickets, Waiting,
)  # fmt: skip


def conformance(loader: unittest.TestLoader, make: type[Harness], *, without: str = "") -> unittest.TestSuite:
    """Return the whole suite for one store.

    :param make: makes a store that has just begun, and is settled.
    :param without: name of a test that takes too long for what it says of this store.
    """
    suite = unittest.TestSuite()
    for case in CASES:
        names = [name for name in loader.getTestCaseNames(case) if name != without]
        of_store = type(f"{case.__name__}Of{make.__name__}", (case,), {"make": make})
        suite.addTests(map(of_store, names))
    return suite


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    """Discovery finds no tests here: the suite needs a store."""
    return unittest.TestSuite()
