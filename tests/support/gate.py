"""A place where a thread of a test stops."""

from __future__ import annotations

import threading
import unittest

__all__ = ["Gate"]


class Gate:
    """Stops a thread until the test opens it, or ends. Both wait with a limit.

    :param case: the test.
    :param seconds: for which a wait may last.
    """

    def __init__(self, case: unittest.TestCase, seconds: float) -> None:
        self._case = case
        self._seconds = seconds
        self._reached, self._opened = threading.Event(), threading.Event()
        case.addCleanup(self._opened.set)

    def stop(self) -> None:
        """Wait until the gate is opened. For the thread."""
        self._reached.set()
        self._case.assertTrue(self._opened.wait(self._seconds))

    def wait(self) -> None:
        """Wait until a thread stands here. For the test."""
        self._case.assertTrue(self._reached.wait(self._seconds))

    def open(self) -> None:
        """Let every thread go on, now and later."""
        self._opened.set()
