"""Unexpected exceptions: all are counted, and at most five a second are logged."""

from __future__ import annotations

import logging
import unittest

from wsproxy.telemetry.counters import Counters
from wsproxy.telemetry.failures import Failures

_LOGGER = logging.getLogger("wsproxy.test-of-failures")


class Flood(unittest.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = 100.0
        self.counters = Counters()
        self.failures = Failures(self.counters, lambda: self.now)

    def fail(self, times: int = 1) -> list[str]:  # type: ignore[override]
        """Report so many exceptions and return what was logged."""
        with self.assertLogs(_LOGGER, "DEBUG") as logs:
            _LOGGER.debug("-")
            for number in range(times):
                try:
                    raise ZeroDivisionError("a bug")
                except ZeroDivisionError:
                    self.failures.report(_LOGGER, "%s failed", number)
        return logs.output[1:]

    def test_traceback(self) -> None:
        """Each is one record, with its traceback."""
        (line,) = self.fail()
        self.assertTrue(line.startswith("ERROR:wsproxy.test-of-failures:0 failed\nTraceback"), line)
        self.assertIn("ZeroDivisionError: a bug", line)

    def test_few_a_second(self) -> None:
        """The sixth and later ones of a second are only counted; the next record tells their number."""
        self.assertEqual(len(self.fail(1000)), 5)
        self.assertEqual(self.fail(3), [])
        self.now += 1.0
        (line,) = self.fail()
        self.assertIn("0 failed (998 more were not logged)\n", line)
        self.assertNotIn("more", self.fail()[0])
        self.assertEqual(self.counters.numbers(0).failures, 1005)


if __name__ == "__main__":
    unittest.main()
