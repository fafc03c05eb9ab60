"""UNIX time when the clock is set: it never decreases, and a jump wakes the tasks that depend on it."""

from __future__ import annotations

import logging
import threading
import unittest

from wsproxy.runtime.timers import ClockWatch, Housekeeping
from wsproxy.runtime.wall_clock import WallClock


class WallClockTest(unittest.TestCase):
    def setUp(self) -> None:
        self.time = 1000.0
        self.clock = WallClock(lambda: self.time)

    def test_goes_on(self) -> None:
        """It says what the clock says, as long as that goes on."""
        for time in (1000.0, 1000.5, 2000.0):
            self.time = time
            self.assertEqual(self.clock(), time)

    def test_set_back(self) -> None:
        """The latest time that was seen counts until the clock has caught up; one line says so."""
        self.clock()
        self.time = 4600.0
        self.clock()
        with self.assertLogs("wsproxy.clock", "WARNING") as logs:
            for time in (1000.0, 1010.0, 4599.0):
                self.time = time
                self.assertEqual(self.clock(), 4600.0)
        self.assertEqual(len(logs.output), 1)
        self.assertIn("set back by 3600 s", logs.output[0])
        self.time = 4601.0
        self.assertEqual(self.clock(), 4601.0)
        self.time = 4000.0
        with self.assertLogs("wsproxy.clock", "WARNING"):
            self.clock()

    def test_small_corrections(self) -> None:
        """A correction of less than a second is not worth a line, and changes nothing either."""
        self.clock()
        self.time -= 0.9
        with self.assertNoLogs("wsproxy.clock", logging.DEBUG):
            self.assertEqual(self.clock(), 1000.0)

    def test_threads(self) -> None:
        """What one thread has seen counts for all."""
        times = iter(range(10_000))
        clock = WallClock(lambda: next(times) % 7 / 8)
        seen: list[list[float]] = [[] for _ in range(4)]

        def look(into: list[float]) -> None:
            into += [clock() for _ in range(1000)]

        threads = [threading.Thread(target=look, args=(into,)) for into in seen]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for one in seen:
            self.assertEqual(one, sorted(one))
        self.assertEqual(clock(), 6 / 8)


class _Dependent:
    def __init__(self) -> None:
        self.calls = 0

    def tick(self, now: float) -> float:
        self.calls += 1
        return now + 1e6


class ClockWatchTest(unittest.TestCase):
    """A watch whose housekeeping only notes whom it is to wake."""

    def setUp(self) -> None:
        self.now, self.time = 50.0, 1000.0
        self.woken: list[object] = []
        housekeeping = Housekeeping(lambda: self.now)
        housekeeping.wake = lambda task, delay=0.0: self.woken.append(task)  # type: ignore[method-assign]
        self.watch = ClockWatch(WallClock(lambda: self.time), housekeeping)
        self.task = _Dependent()
        self.watch.add(self.task)
        self.tick()

    def tick(self, seconds: float = 0.0, set_by: float = 0.0) -> int:
        """Let time pass, set the clock, look, and return how many were woken."""
        self.now += seconds
        self.time += seconds + set_by
        self.woken.clear()
        self.assertEqual(self.watch.tick(self.now), self.now + 1.0)
        return len(self.woken)

    def test_no_jump(self) -> None:
        """While both clocks run equally fast, no task is woken."""
        self.assertEqual([self.tick(1, by) for by in (0, 0.1, -0.1, 0.2, 0)], [0] * 5)

    def test_jump(self) -> None:
        """A jump forward wakes whatever depends on the time, once, and nothing that was removed."""
        other = _Dependent()
        self.watch.add(other)
        self.assertEqual(self.tick(1, 30), 2)
        self.assertEqual(self.tick(1), 0)
        self.watch.remove(other)
        self.watch.remove(other)
        self.assertEqual(self.tick(1, 30), 1)
        self.assertEqual(self.woken, [self.task])

    def test_drift(self) -> None:
        """Many small corrections are a jump in the end."""
        self.assertEqual(sum(self.tick(1, 0.2) for _ in range(21)), 7)

    def test_jump_after_a_jump_back(self) -> None:
        """A jump forward counts from where the time has stood still, and not from where it was before."""
        with self.assertLogs("wsproxy.clock"):
            self.tick(1, -50)
        for _ in range(30):
            self.assertEqual(self.tick(1), 0)
        self.assertEqual(self.tick(1, 40), 1)


if __name__ == "__main__":
    unittest.main()
