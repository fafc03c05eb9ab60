"""Deadline: one point in time, shared by several waits."""

from __future__ import annotations

import time
import unittest

from wsproxy.runtime.deadline import Deadline, since_boot


class ClockStub:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class DeadlineTest(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ClockStub()
        self.deadline = Deadline(10, self.clock)

    def test_remaining(self) -> None:
        """The remaining time shrinks with the clock, whichever step waits."""
        self.assertEqual(self.deadline.remaining(), 10)
        self.clock.now += 4
        self.assertEqual(self.deadline.remaining(), 6)
        self.assertFalse(self.deadline.passed)

    def test_raises_once_passed(self) -> None:
        """At its instant a deadline has passed, and asking for what remains raises TimeoutError."""
        self.clock.now += 10
        self.assertTrue(self.deadline.passed)
        self.assertRaises(TimeoutError, self.deadline.remaining)

    def test_stays_passed(self) -> None:
        """It raises every time it is asked, not only the first time."""
        self.clock.now += 11
        for _ in range(2):
            self.assertRaises(TimeoutError, self.deadline.remaining)

    def test_timeout_has_no_errno(self) -> None:
        """Its TimeoutError is told from the kernel's ETIMEDOUT by having no errno."""
        self.clock.now += 10
        with self.assertRaises(TimeoutError) as caught:
            self.deadline.remaining()
        self.assertIsNone(caught.exception.errno)

    def test_zero_and_negative(self) -> None:
        """A deadline of no seconds, or of fewer, has passed from the start."""
        for seconds in (0, -1):
            with self.subTest(seconds=seconds):
                self.assertTrue(Deadline(seconds, self.clock).passed)

    def test_default_clock(self) -> None:
        """Without a clock of its own it follows the monotonic one."""
        before = time.monotonic()
        remaining = Deadline(1000).remaining()
        self.assertLessEqual(remaining, 1000)
        self.assertGreaterEqual(remaining, 1000 - (time.monotonic() - before))

    def test_repr(self) -> None:
        """Its repr says what is left, with a sign."""
        self.assertEqual(repr(self.deadline), "<Deadline +10.000s>")
        self.clock.now += 12.5
        self.assertEqual(repr(self.deadline), "<Deadline -2.500s>")


class SinceBootTest(unittest.TestCase):
    def test_suspended_machine(self) -> None:
        """It is the clock that goes on while the machine is suspended."""
        clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        before = time.clock_gettime(clock)
        self.assertTrue(before <= since_boot() <= time.clock_gettime(clock))
