"""Which thread runs a pump, and when, with pumps that the test controls."""

from __future__ import annotations

import threading
import unittest
from collections.abc import Callable
from typing import Any, cast

from wsproxy.relay.poller import Poller
from wsproxy.relay.pump import Pump
from wsproxy.relay.scheduler import PumpThreads
from wsproxy.testing.case import LeakTestCase

_TIMEOUT = 60.0


class FakePump:
    """Each call of ``copy`` waits for :attr:`go_on`; :attr:`end_next` makes it the last one."""

    def __init__(self) -> None:
        self.has_unread = False
        self.is_over = False
        self.end_next = False
        self.bug: Exception | None = None
        self.inside = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.threads: list[str] = []
        self.until_quiet: bool | None = None

    def copy(self, *, until_quiet: bool) -> None:
        self.threads.append(threading.current_thread().name)
        self.until_quiet = until_quiet
        self.inside.release()
        self.go_on.acquire(timeout=_TIMEOUT)
        if self.bug:
            raise self.bug
        self.is_over = self.end_next


class FakePoller:
    """Only knows what it watches."""

    def __init__(self) -> None:
        self.refuses = False
        self.watched: list[FakePump] = []
        self.came = threading.Semaphore(0)

    def watch(self, pump: FakePump) -> None:
        if self.refuses:
            raise OSError(28, "no space")
        self.watched.append(pump)
        self.came.release()


class PumpThreadsTestCase(LeakTestCase):
    with_poller = True

    def setUp(self) -> None:
        super().setUp()
        self.one, self.two = FakePump(), FakePump()
        self.poller = FakePoller()
        self.ended: list[FakePump] = []
        self.raised: list[BaseException] = []
        self.started = 0
        self.threads = PumpThreads(
            cast(Poller, self.poller) if self.with_poller else None,
            self.start_second,
            on_end=cast(Callable[[Pump], None], self.ended.append),
            on_failure=self.abort,
        )

    def start_second(self, target: Callable[[], None]) -> threading.Thread:
        self.started += 1
        thread = threading.Thread(target=target, name=f"second-{self.started}")
        thread.start()
        return thread

    def abort(self) -> None:
        for pump in (self.one, self.two):
            pump.end_next = True
            pump.go_on.release()

    def start(self) -> None:
        self.thread = threading.Thread(target=self.run_threads, name="session")
        self.thread.start()
        self.addCleanup(self.thread.join, _TIMEOUT)

    def run_threads(self) -> None:
        try:
            self.threads.run(cast(Any, [self.one, self.two]))
        except (OSError, RuntimeError, ZeroDivisionError) as exc:
            self.raised.append(exc)

    def let_go(self, pump: FakePump, *, over: bool = False) -> None:
        """What the poller does."""
        self.poller.watched.remove(pump)
        pump.is_over = over
        self.threads.let_go(cast(Pump, pump))

    def started_and_watched(self) -> None:
        self.start()
        for _ in range(2):
            self.assertTrue(self.poller.came.acquire(timeout=_TIMEOUT))

    def assert_copying(self, pump: FakePump) -> None:
        self.assertTrue(pump.inside.acquire(timeout=_TIMEOUT))

    def finish_copying(self, pump: FakePump, *, over: bool) -> None:
        pump.end_next = over
        pump.go_on.release()

    def assert_done(self) -> None:
        self.thread.join(_TIMEOUT)
        self.assertFalse(self.thread.is_alive())
        self.assertCountEqual(self.ended, [self.one, self.two])


class WithPoller(PumpThreadsTestCase):
    def test_small_things_only(self) -> None:
        """If the poller copies everything, the session's own thread sleeps until both pumps are over."""
        self.started_and_watched()
        self.let_go(self.one, over=True)
        self.assertTrue(self.thread.is_alive())
        self.let_go(self.two, over=True)
        self.assert_done()
        self.assertEqual((self.started, self.one.threads, self.two.threads), (0, [], []))

    def test_one_at_a_time(self) -> None:
        """One pump at a time is run by the session's own thread, and goes back to the poller when quiet."""
        self.started_and_watched()
        for pump in (self.one, self.two, self.one):
            self.let_go(pump)
            self.assert_copying(pump)
            self.finish_copying(pump, over=False)
            self.assertTrue(self.poller.came.acquire(timeout=_TIMEOUT))
        self.assertEqual((self.one.threads, self.two.threads), (["session"] * 2, ["session"]))
        self.assertTrue(self.one.until_quiet)
        self.let_go(self.one, over=True)
        self.let_go(self.two, over=True)
        self.assert_done()
        self.assertEqual(self.started, 0)

    def test_both_at_once(self) -> None:
        """If both pumps need a thread at once, a second thread starts, each time; all are joined."""
        self.started_and_watched()
        for _ in range(3):
            for pump in (self.one, self.two):
                self.let_go(pump)
                self.assert_copying(pump)
            for pump in (self.one, self.two):
                self.finish_copying(pump, over=False)
                self.assertTrue(self.poller.came.acquire(timeout=_TIMEOUT))
        for pump in (self.two, self.one):
            self.let_go(pump)
            self.assert_copying(pump)
            self.finish_copying(pump, over=True)
        self.assert_done()
        self.assertGreater(self.started, 0)

    def test_unread_bytes(self) -> None:
        """Bytes that came with a handshake are copied before the poller watches."""
        self.two.has_unread = True
        self.start()
        self.assert_copying(self.two)
        self.finish_copying(self.two, over=False)
        for _ in range(2):
            self.assertTrue(self.poller.came.acquire(timeout=_TIMEOUT))
        self.let_go(self.two, over=True)
        self.let_go(self.one, over=True)
        self.assert_done()

    def test_no_second_thread(self) -> None:
        """When the second thread cannot be started everything is ended, and the caller is told."""

        def fail(target: Callable[[], None]) -> threading.Thread:
            raise RuntimeError("can't start new thread")

        self.threads._start_thread = fail
        self.started_and_watched()
        self.let_go(self.one)
        self.assert_copying(self.one)
        self.let_go(self.two)
        self.assert_done()
        self.assertEqual([str(exc) for exc in self.raised], ["can't start new thread"])
        self.assertEqual(self.two.threads, ["session"])

    def test_poller_refuses(self) -> None:
        """When the poller takes no more everything is ended, and the caller is told."""
        self.poller.refuses = True
        self.start()
        self.assert_done()
        self.assertIsInstance(self.raised[0], OSError)

    def test_bug_in_the_poller(self) -> None:
        """A failure that the poller found is raised by ``run``."""
        self.started_and_watched()
        self.threads.fail(ZeroDivisionError())
        self.let_go(self.one, over=True)
        self.let_go(self.two, over=True)
        self.assert_done()
        self.assertIsInstance(self.raised[0], ZeroDivisionError)

    def test_bug_at_the_end(self) -> None:
        """If ``on_end`` raises, the pump counts as ended."""

        def fail(pump: Pump) -> None:
            self.ended.append(cast(FakePump, pump))
            raise ZeroDivisionError

        self.threads._on_end = fail
        self.started_and_watched()
        self.let_go(self.one, over=True)
        self.let_go(self.two, over=True)
        self.assert_done()
        self.assertIsInstance(self.raised[0], ZeroDivisionError)


class WithoutPoller(PumpThreadsTestCase):
    with_poller = False

    def test_two_threads(self) -> None:
        """Each pump has a thread from its start to its end."""
        self.start()
        self.assert_copying(self.one)
        self.assert_copying(self.two)
        self.assertEqual((self.one.until_quiet, self.two.until_quiet), (False, False))
        self.finish_copying(self.one, over=True)
        self.finish_copying(self.two, over=True)
        self.assert_done()
        self.assertCountEqual(self.one.threads + self.two.threads, ["session", "second-1"])

    def test_bug(self) -> None:
        """A bug in one ends the other, and is raised."""
        self.one.bug = ZeroDivisionError()
        self.start()
        self.assert_copying(self.two)
        self.one.go_on.release()
        self.assert_done()
        self.assertEqual(self.raised, [self.one.bug])


if __name__ == "__main__":
    unittest.main()
