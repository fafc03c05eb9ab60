"""The timer thread: what it calls, when, and what it survives."""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any
from unittest import mock

from wsproxy.runtime.threads import current_owner
from wsproxy.runtime.timers import Housekeeping
from wsproxy.testing.case import LeakTestCase

WAIT = 60.0


class Task:
    """Reports each call, and asks to be called again after ``interval``."""

    def __init__(self, calls: queue.SimpleQueue[tuple[Task, float]], interval: float = 1000.0) -> None:
        self.calls = calls
        self.interval = interval
        self.during: Callable[[], object] = lambda: None

    def tick(self, now: float) -> float:
        self.calls.put((self, now))
        self.during()
        return now + self.interval


class HousekeepingTest(LeakTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = 100.0
        self.calls: queue.SimpleQueue[tuple[Task, float]] = queue.SimpleQueue()
        self.housekeeping = Housekeeping(lambda: self.now)
        # Its only use is to make the thread look at the clock.
        self.nudge = Task(queue.SimpleQueue())

    def start(self) -> None:
        self.housekeeping.start(self)
        self.addCleanup(self.housekeeping.stop)
        self.housekeeping.add(self.nudge)
        self.nudged()

    def nudged(self) -> None:
        """Wait until the thread has looked at the clock once more, and done what was due by then."""
        self.housekeeping.wake(self.nudge)
        self.nudge.calls.get(timeout=WAIT)
        while not self.nudge.calls.empty():
            self.nudge.calls.get()
        self.housekeeping.wake(self.nudge)
        self.nudge.calls.get(timeout=WAIT)

    def task(self, interval: float = 1000.0) -> Task:
        return Task(self.calls, interval)

    def called(self) -> tuple[Task, float]:
        return self.calls.get(timeout=WAIT)

    def test_called_at_once(self) -> None:
        """What is added is called at once, with the clock's reading."""
        self.start()
        task = self.task()
        self.housekeeping.add(task)
        self.assertEqual(self.called(), (task, 100.0))

    def test_does_not_keep_what_was_removed(self) -> None:
        """A session that has ended does not stay until it would have been called."""
        self.start()
        task, forgotten = self.task(), threading.Event()
        weakref.finalize(task, forgotten.set)
        self.housekeeping.add(task)
        self.assertEqual(self.called()[0], task)
        self.nudged()
        self.housekeeping.remove(task)
        del task
        self.assertTrue(forgotten.wait(WAIT))

    def test_does_not_keep_what_it_called_last(self) -> None:
        """A session does not stay until something else is called."""
        forgotten, going_on = threading.Event(), threading.Event()
        task = self.task()
        weakref.finalize(task, forgotten.set)
        self.housekeeping.add(task)
        task.during = lambda: going_on.wait(WAIT)
        self.housekeeping.start(self)
        self.addCleanup(self.housekeeping.stop)
        self.assertEqual(self.called(), (task, 100.0))
        self.housekeeping.remove(task)
        del task
        going_on.set()
        self.assertTrue(forgotten.wait(WAIT))

    def test_called_after_a_delay(self) -> None:
        """A task added with a delay is not called before it has passed."""
        self.start()
        task = self.task(10)
        self.housekeeping.add(task, 5.0)
        self.nudged()
        self.assertTrue(self.calls.empty())
        self.now += 5.0
        self.nudged()
        self.assertEqual(self.called()[0], task)

    def test_delay_in_real_time(self) -> None:
        """The thread notices a task that is due before all others, and is not woken for a later one."""
        housekeeping = Housekeeping()
        housekeeping.start(self)
        self.addCleanup(housekeeping.stop)
        housekeeping.add(self.task(), WAIT * 10)
        with mock.patch.object(housekeeping._changed, "notify") as notify:
            housekeeping.add(self.task(), WAIT * 20)
            notify.assert_not_called()
        task = self.task()
        housekeeping.add(task, 0.01)
        self.assertEqual(self.called()[0], task)

    def test_added_before_the_start(self) -> None:
        """What is added before the start is called after it."""
        task = self.task()
        self.housekeeping.add(task)
        self.start()
        self.assertEqual(self.called(), (task, 100.0))

    def test_called_when_it_asked_for(self) -> None:
        """A task is called again when it asked to be, and not before."""
        self.start()
        task = self.task(interval=5)
        self.housekeeping.add(task)
        self.called()
        self.now = 104.9
        self.nudged()
        self.assertTrue(self.calls.empty())
        self.now = 105.0
        self.nudged()
        self.assertEqual(self.called(), (task, 105.0))
        self.assertTrue(self.calls.empty())

    def test_real_time(self) -> None:
        """With the real clock, the test does not have to nudge the thread."""
        housekeeping = Housekeeping()
        housekeeping.start(self)
        self.addCleanup(housekeeping.stop)
        housekeeping.add(self.task(interval=0.001))
        for _ in range(5):
            self.called()

    def test_order(self) -> None:
        """What is due earlier is called earlier."""
        self.start()
        late, early = self.task(20), self.task(10)
        for task in (late, early):
            self.housekeeping.add(task)
            self.called()
        self.now = 130.0
        self.nudged()
        self.assertEqual([self.called()[0], self.called()[0]], [early, late])

    def test_wake(self) -> None:
        """A task that is woken is called at once, whenever it was due."""
        self.start()
        task = self.task()
        self.housekeeping.add(task)
        self.called()
        self.housekeeping.wake(task)
        self.assertEqual(self.called(), (task, 100.0))
        self.nudged()
        self.assertTrue(self.calls.empty())

    def test_wake_during_the_call(self) -> None:
        """A task that is woken while it is being called is called once more."""
        self.start()
        task = self.task()

        def during() -> None:
            task.during = lambda: None
            self.housekeeping.wake(task)

        task.during = during
        self.housekeeping.add(task)
        self.assertEqual([self.called(), self.called()], [(task, 100.0)] * 2)
        self.nudged()
        self.assertTrue(self.calls.empty())

    def test_wake_of_a_stranger(self) -> None:
        """Waking what is not in its care does nothing."""
        self.start()
        self.housekeeping.wake(self.task())
        self.nudged()
        self.assertTrue(self.calls.empty())

    def test_remove(self) -> None:
        """What is removed is called no more, woken or due; removing it again does nothing."""
        self.start()
        task = self.task(5)
        self.housekeeping.add(task)
        self.called()
        self.assertEqual(len(self.housekeeping), 2)
        self.housekeeping.remove(task)
        self.housekeeping.remove(task)
        self.assertEqual(len(self.housekeeping), 1)
        self.housekeeping.wake(task)
        self.now = 200.0
        self.nudged()
        self.assertTrue(self.calls.empty())

    def test_removed_is_not_kept(self) -> None:
        """What is removed long before it is due is not kept until then; what stays is still called."""
        stays = self.task()
        self.housekeeping.add(stays, 50)
        removed = []
        for _ in range(100):
            task = self.task()
            removed.append(weakref.ref(task))
            self.housekeeping.add(task, 25)
            self.housekeeping.remove(task)
            del task
        self.assertLess(sum(task() is not None for task in removed), 20)
        self.now += 60.0
        self.start()
        self.assertIs(self.called()[0], stays)

    def test_remove_during_the_call(self) -> None:
        """A task that is removed while it is being called is not called again."""
        self.start()
        task = self.task(5)
        task.during = lambda: self.housekeeping.remove(task)
        self.housekeeping.add(task)
        self.called()
        self.now = 200.0
        self.nudged()
        self.assertTrue(self.calls.empty())
        self.assertEqual(len(self.housekeeping), 1)

    def test_added_again(self) -> None:
        """A task may come back after it was removed, and is called once for each time it is due."""
        self.start()
        task = self.task(5)
        for _ in range(3):
            self.housekeeping.add(task)
            self.called()
            self.housekeeping.remove(task)
        self.housekeeping.add(task)
        self.called()
        self.now = 105.0
        self.nudged()
        self.called()
        self.assertTrue(self.calls.empty())

    def test_a_bug_in_one_task(self) -> None:
        """A task that raises is logged and tried again a second later; the others go on."""
        self.start()
        bad, good = self.task(), self.task(1)

        def fail() -> None:
            raise ValueError("a bug")

        bad.during = fail
        with self.assertLogs("wsproxy.housekeeping", logging.ERROR) as logs:
            self.housekeeping.add(bad)
            self.called()
            self.housekeeping.add(good)
            self.called()
            self.now = 100.9
            self.nudged()
            self.assertTrue(self.calls.empty())
            self.now = 101.0
            self.nudged()
        self.assertEqual({self.called()[0], self.called()[0]}, {bad, good})
        self.assertEqual(len(logs.records), 2)
        self.assertIsNotNone(logs.records[0].exc_info)

    def test_bugs_of_every_kind(self) -> None:
        """A task that returns no valid time, or that exits, is called again like others."""
        self.start()
        for answer in (float("nan"), None, "soon", SystemExit()):
            with self.subTest(answer=answer), self.assertLogs("wsproxy.housekeeping", logging.ERROR):
                task = self.task()
                ticks: queue.SimpleQueue[float] = queue.SimpleQueue()

                def tick(now: float, answer: object = answer, ticks: Any = ticks) -> Any:
                    ticks.put(now)
                    if isinstance(answer, BaseException):
                        raise answer
                    return answer

                task.tick = tick  # type: ignore[method-assign]
                self.housekeeping.add(task)
                self.assertEqual(ticks.get(timeout=WAIT), self.now)
                self.now += 1.0
                self.nudged()
                self.assertEqual(ticks.get(timeout=WAIT), self.now)
                self.housekeeping.remove(task)
        self.assertTrue(self.housekeeping.is_healthy)

    def test_error_between_tasks(self) -> None:
        """An error in the thread's own work, here its clock, does not end it."""
        self.start()
        good, failing = self.housekeeping._clock, [True]

        def clock() -> float:
            if failing and threading.current_thread().name == "wsproxy-housekeeping":
                failing.clear()
                raise ZeroDivisionError
            return good()

        with self.assertLogs("wsproxy.threads", logging.ERROR):
            self.housekeeping._clock = clock
            task = self.task()
            with self.housekeeping._changed:
                self.housekeeping._schedule(task, self.now)
                self.housekeeping._changed.notify()
            self.assertEqual(self.called()[0], task)
        self.assertTrue(self.housekeeping.is_healthy)

    def test_stop(self) -> None:
        """After the stop nothing is called, and the thread is gone; stopping again does nothing."""
        self.start()
        self.housekeeping.add(self.task())
        self.called()
        self.housekeeping.stop()
        self.housekeeping.stop()
        self.assertNotIn("wsproxy-housekeeping", [thread.name for thread in threading.enumerate()])
        self.housekeeping.add(self.task())
        self.assertTrue(self.calls.empty())

    def test_stop_before_start(self) -> None:
        """Stopping what never started does nothing."""
        self.housekeeping.stop()

    def test_owner(self) -> None:
        """The thread works for whom it was started for."""
        self.start()
        task = self.task()
        owners: list[object | None] = []
        task.during = lambda: owners.append(current_owner())
        self.housekeeping.add(task)
        self.called()
        self.nudged()
        self.assertEqual(owners, [self])

    def test_not_held_while_calling(self) -> None:
        """While a task is being called others can be added, woken and removed."""
        self.start()
        task, other = self.task(), self.task()
        inside, leave = threading.Event(), threading.Event()

        def block() -> None:
            inside.set()
            leave.wait(WAIT)

        task.during = block
        self.housekeeping.add(task)
        self.assertTrue(inside.wait(WAIT))
        self.housekeeping.add(other)
        self.housekeeping.wake(other)
        self.housekeeping.remove(other)
        leave.set()
        self.called()
        self.nudged()
        self.assertTrue(self.calls.empty())
