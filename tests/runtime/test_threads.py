"""Starting threads: their stack, their name, their owner."""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from unittest import mock

from wsproxy.runtime import threads
from wsproxy.runtime.deadline import Deadline
from wsproxy.runtime.threads import ThreadPool, VitalLoop, current_owner, start_thread, working_for
from wsproxy.testing.case import LeakTestCase

_TIMEOUT = 60.0


class VitalLoopTest(LeakTestCase):
    """What is called in a thread that all others need."""

    def setUp(self) -> None:
        super().setUp()
        self.now = 0.0
        self.steps: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self.called = threading.Semaphore(0)
        patcher = mock.patch("wsproxy.runtime.threads._LONGEST_PAUSE", 0.0)
        patcher.start()
        self.addCleanup(patcher.stop)

    def start(self) -> VitalLoop:
        loop = VitalLoop("this", self.step, lambda: self.now)
        thread = start_thread("wsproxy-x", loop.run, self)
        self.addCleanup(thread.join)
        self.addCleanup(self.steps.put, None)
        self.addCleanup(loop.stop)
        self.thread = thread
        self.assertTrue(self.called.acquire(timeout=_TIMEOUT))
        return loop

    def step(self) -> None:
        self.called.release()
        if exc := self.steps.get(timeout=_TIMEOUT):
            raise exc

    def fail(self, exc: BaseException) -> None:  # type: ignore[override]
        """Have the target raise, and go on when it has been called again."""
        self.steps.put(exc)
        self.assertTrue(self.called.acquire(timeout=_TIMEOUT))

    def test_continues(self) -> None:
        """Whatever the target raises, the loop calls it again, and the log has one traceback."""
        with self.assertLogs("wsproxy.threads", "ERROR") as logs:
            loop = self.start()
            for exc in (ZeroDivisionError(), MemoryError(), SystemExit(), KeyboardInterrupt()):
                self.fail(exc)
        self.assertTrue(loop.is_healthy)
        self.assertEqual(len(logs.output), 1)
        self.assertIn("unexpected error; this continues\nTraceback", logs.output[0])

    def test_health(self) -> None:
        """It is not healthy when it fails again and again, and is when that has been over for a while."""
        with self.assertLogs("wsproxy.threads", "ERROR"):
            loop = self.start()
            for healthy in (True, True, True, True, False, False):
                self.fail(ZeroDivisionError())
                self.assertEqual(loop.is_healthy, healthy)
            self.now = 5.0
            self.assertTrue(loop.is_healthy)
            self.fail(ZeroDivisionError())
            self.assertTrue(loop.is_healthy)

    def test_ended(self) -> None:
        """It is not healthy when it has ended, unless it was meant to."""
        for meant in (True, False):
            loop = self.start()
            if meant:
                loop.stop()
            self.steps.put(None)
            self.thread.join(_TIMEOUT)
            self.assertEqual(loop.is_healthy, meant)

    def test_stop(self) -> None:
        """A stop ends the pause after an error; the target is not called again."""
        with (
            mock.patch("wsproxy.runtime.threads._LONGEST_PAUSE", 1000.0),
            mock.patch("wsproxy.runtime.threads._FIRST_PAUSE", 1000.0),
            self.assertLogs("wsproxy.threads", "ERROR"),
        ):
            loop = self.start()
            self.steps.put(ZeroDivisionError())
            loop.stop()
            self.thread.join(_TIMEOUT)
        self.assertFalse(self.thread.is_alive())
        self.assertFalse(self.called.acquire(blocking=False))

    def test_log_that_fails(self) -> None:
        """A handler of the program's that raises ends it as little."""

        class Failing(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                raise ZeroDivisionError

        handler = Failing()
        threads.logger.addHandler(handler)
        self.addCleanup(threads.logger.removeHandler, handler)
        self.start()
        self.fail(ValueError())


class StartThreadTest(LeakTestCase):
    def test_runs_the_target(self) -> None:
        """The target runs in a daemon thread of the given name, which the caller can join."""
        seen: list[str] = []
        thread = start_thread("wsproxy-x", lambda: seen.append(threading.current_thread().name), self)
        thread.join()
        self.assertEqual(seen, ["wsproxy-x"])
        self.assertTrue(thread.daemon)

    def test_owner(self) -> None:
        """A thread knows what it works for, and only that thread does."""
        seen: list[object | None] = []
        owner = object()
        start_thread("wsproxy-x", lambda: seen.append(current_owner()), owner).join()
        self.assertEqual(seen, [owner])
        self.assertIsNone(current_owner())

    def test_owner_for_a_while(self) -> None:
        """A thread that was started elsewhere may be owned for a while, also by one within another."""
        outer, inner = object(), object()
        with working_for(outer):
            with self.assertRaises(ZeroDivisionError), working_for(inner):
                self.assertIs(current_owner(), inner)
                raise ZeroDivisionError
            self.assertIs(current_owner(), outer)
        self.assertIsNone(current_owner())

    def test_foreign_threads_have_no_owner(self) -> None:
        """A thread that was started elsewhere has no owner."""
        seen: list[object | None] = []
        thread = threading.Thread(target=lambda: seen.append(current_owner()))
        thread.start()
        thread.join()
        self.assertEqual(seen, [None])

    def test_stack_size_is_given_back(self) -> None:
        """The process's setting for the stack is small during the start only."""
        before = threading.stack_size()
        sizes: list[int] = []
        start = threading.Thread.start

        def watched(thread: threading.Thread) -> None:
            sizes.append(threading.stack_size())
            start(thread)

        with mock.patch.object(threading.Thread, "start", watched):
            start_thread("wsproxy-x", lambda: None, self).join()
        self.assertEqual(sizes, [threads.STACK_SIZE])
        self.assertEqual(threading.stack_size(), before)

    def test_no_thread_left(self) -> None:
        """If the system starts no more threads that is raised, and the stack setting is given back."""
        before = threading.stack_size()
        with (
            mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")),
            self.assertRaises(RuntimeError),
        ):
            start_thread("wsproxy-x", lambda: None, self)
        self.assertEqual(threading.stack_size(), before)


class ThreadPoolTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.owner = object()
        self.pool = ThreadPool(self.owner)
        self.addCleanup(self.pool.stop, _TIMEOUT)

    def run_and_wait(self, name: str = "wsproxy-x") -> threading.Thread:
        """Have the pool run something to its end and return the thread that did."""
        seen: queue.SimpleQueue[tuple[threading.Thread, str, object]] = queue.SimpleQueue()

        def target() -> None:
            this = threading.current_thread()
            seen.put((this, this.name, current_owner()))

        self.pool.run(name, target)
        thread, seen_name, owner = seen.get(timeout=_TIMEOUT)
        self.assertEqual((seen_name, owner), (name, self.owner))
        return thread

    def wait_until_idle(self, threads_idle: int) -> None:
        deadline, pause = Deadline(_TIMEOUT), threading.Event()
        while len(self.pool._idle) != threads_idle:
            deadline.remaining()
            pause.wait(0.001)

    def test_used_again(self) -> None:
        """What comes later is run by the thread that is idle, under its own name."""
        first = self.run_and_wait("wsproxy-1")
        self.wait_until_idle(1)
        self.assertEqual(first.name, "wsproxy-idle")
        self.assertIs(self.run_and_wait("wsproxy-2"), first)

    def test_nobody_waits(self) -> None:
        """However many are busy, one more is started; only a few stay."""
        leave, inside = threading.Event(), threading.Semaphore(0)

        def target() -> None:
            inside.release()
            leave.wait(_TIMEOUT)

        for number in range(20):
            self.pool.run(f"wsproxy-{number}", target)
        for _ in range(20):
            self.assertTrue(inside.acquire(timeout=_TIMEOUT))
        leave.set()
        self.wait_until_idle(threads._MAX_IDLE)

    def test_idle_threads_end(self) -> None:
        """A thread that had nothing to do for a while ends; the next one is started."""
        with mock.patch.object(threads, "_IDLE_SECONDS", 0.01):
            first = self.run_and_wait()
            first.join(_TIMEOUT)
            self.assertFalse(first.is_alive())
            self.assertIsNot(self.run_and_wait(), first)

    def test_taken_while_it_gives_up(self) -> None:
        """Something that comes while a thread gives up waiting is run all the same."""
        with mock.patch.object(threads, "_IDLE_SECONDS", 0.0005):
            for _ in range(300):
                self.run_and_wait()

    def test_stop(self) -> None:
        """After a stop no thread is left, idle or busy, and those that end later do not stay."""
        idle = self.run_and_wait()
        self.wait_until_idle(1)
        leave = threading.Event()
        self.pool.run("wsproxy-idle-one", lambda: None)
        self.wait_until_idle(1)

        def busy() -> None:
            leave.wait(_TIMEOUT)

        self.pool.run("wsproxy-busy", busy)
        self.pool.stop(0.0)
        self.assertTrue(idle.is_alive())
        leave.set()
        self.pool.stop(_TIMEOUT)
        self.assertFalse(idle.is_alive())

    def test_no_thread_left(self) -> None:
        """If the system starts no more threads that is raised."""
        with (
            mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")),
            self.assertRaises(RuntimeError),
        ):
            self.pool.run("wsproxy-x", lambda: None)
        self.run_and_wait()

    def test_nothing_is_kept(self) -> None:
        """An idle thread does not keep alive what it ran."""

        class Job:
            def __call__(self) -> None:
                pass

        job = Job()
        reference = weakref.ref(job)
        self.pool.run("wsproxy-x", job)
        del job
        self.wait_until_idle(1)
        self.assertIsNone(reference())
