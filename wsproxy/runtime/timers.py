"""The timer thread of a server: it drives pings, liveness, lifetimes and close timeouts of all sessions."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
import weakref
from typing import Protocol

from .deadline import Clock
from .logs import Complaints, get_logger
from .threads import VitalLoop, start_thread

__all__ = ["ClockWatch", "Housekeeping", "Ticking"]

logger = get_logger("wsproxy.housekeeping")

_AFTER_A_BUG = 1.0
_LONGEST_WAIT = 1.0  # seconds; a task that is due later need not wake the thread
_RUNNING = float("-inf")
_LOOK_SECONDS = 1.0
_JUMP = 0.5  # seconds


class Ticking(Protocol):
    """A task that the timer thread calls from time to time."""

    def tick(self, now: float) -> float:
        """Do what is due at ``now``, without blocking; return the time of the next call, seconds."""
        ...


class Housekeeping:
    """Calls ``tick`` of each task at the time that the task asked for.

    :param clock: seconds; ``tick`` gets its reading.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        # Guards the attributes below; not held during a tick.
        self._changed = threading.Condition()
        self._due: dict[Ticking, float] = {}
        # Weak: the entry of a removed task stays until it would be due, and must not keep a session alive.
        self._heap: list[tuple[float, int, weakref.ref[Ticking]]] = []
        self._order = itertools.count()
        self._stopping = False
        self._loop = VitalLoop("housekeeping", self._run)
        self._complaints = Complaints(logger, clock, _AFTER_A_BUG)
        self._thread: threading.Thread | None = None

    @property
    def is_healthy(self) -> bool:
        """See :class:`.VitalLoop`."""
        return self._loop.is_healthy

    def start(self, owner: object) -> None:
        """Start the thread, which works for ``owner``. Once only."""
        self._thread = start_thread("wsproxy-housekeeping", self._loop.run, owner)

    def stop(self) -> None:
        """End the thread and wait for it. It calls the remaining tasks no more. Idempotent."""
        self._loop.stop()
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread:
            self._thread.join()

    def add(self, task: Ticking, delay: float = 0.0) -> None:
        """Call ``task`` from now on. Any thread, never blocks.

        :param delay: seconds until the first call.
        """
        with self._changed:
            self._schedule(task, self._clock() + delay)
            if self._heap[0][2]() is task:  # the thread waits for the first task only
                self._changed.notify()

    def wake(self, task: Ticking, delay: float = 0.0) -> None:
        """Call ``task`` in ``delay`` seconds at the latest. Any thread, never blocks.

        Has no effect if ``task`` was removed.
        """
        with self._changed:
            if self._bring_forward(task, self._clock() + delay) and delay < _LONGEST_WAIT:
                self._changed.notify()

    def remove(self, task: Ticking) -> None:
        """Call ``task`` no more; a call under way may still finish. Any thread, never blocks."""
        with self._changed:
            self._due.pop(task, None)

    def __len__(self) -> int:
        return len(self._due)

    def _bring_forward(self, task: Ticking, due: float) -> bool:
        """Schedule ``task``, unless it was removed or is due earlier anyway. Needs the lock."""
        before = self._due.get(task)
        sooner = before is not None and (before == _RUNNING or due < before)
        if sooner:
            self._schedule(task, due)
        return sooner

    def _schedule(self, task: Ticking, due: float) -> None:
        self._due[task] = due
        heapq.heappush(self._heap, (due, next(self._order), weakref.ref(task)))

    def _run(self) -> None:
        while (task := self._next()) is not None:
            self._call(task)
            del task  # so that waiting for the next one does not keep it alive

    def _call(self, task: Ticking) -> None:
        now = self._clock()
        try:
            due = float(task.tick(now))
            if math.isnan(due):
                raise ValueError("a task returned NaN as the time of its next call")
        except BaseException:  # noqa: BLE001 - a bug in one task must not end all others
            self._complaints.note("housekeeping failed")
            due = now + _AFTER_A_BUG
        with self._changed:
            self._bring_forward(task, due)  # unless remove() or wake() was called meanwhile

    def _first(self) -> Ticking | None:
        """Return the task that is due first, and drop outdated entries before it. Needs the lock."""
        while self._heap:
            due, _, reference = self._heap[0]
            task = reference()
            if task is not None and self._due.get(task) == due:
                return task
            heapq.heappop(self._heap)
        return None

    def _next(self) -> Ticking | None:
        """Wait until a task is due and return it; None when stopping."""
        with self._changed:
            while not self._stopping:
                wait = None
                if (task := self._first()) is not None:
                    wait = min(self._heap[0][0] - self._clock(), _LONGEST_WAIT)
                    if wait <= 0:
                        heapq.heappop(self._heap)
                        self._due[task] = _RUNNING
                        return task
                del task
                self._changed.wait(wait)
            return None


class ClockWatch:
    """Wakes all tasks that depend on UNIX time when the wall clock jumps forward.

    Housekeeping waits by a monotonic clock. Between jumps both clocks run equally fast. Safe from every
    thread.

    :param wall_clock: UNIX time, seconds.
    :param housekeeping: calls this watch, and the tasks that it wakes.
    """

    def __init__(self, wall_clock: Clock, housekeeping: Housekeeping) -> None:
        self._wall_clock = wall_clock
        self._housekeeping = housekeeping
        self._lock = threading.Lock()  # guards the attribute below
        self._dependent: set[Ticking] = set()
        self._offset = math.inf  # of UNIX time from the other clock; only housekeeping's thread uses it

    def add(self, task: Ticking) -> None:
        """Wake ``task`` when the wall clock jumps, until :meth:`remove`. Does not block."""
        with self._lock:
            self._dependent.add(task)

    def remove(self, task: Ticking) -> None:
        """Wake ``task`` no more. Idempotent; does not block."""
        with self._lock:
            self._dependent.discard(task)

    def tick(self, now: float) -> float:
        """Compare the clocks. For housekeeping, see :class:`.Ticking`."""
        offset = self._wall_clock() - now
        if offset > self._offset + _JUMP:
            self._offset = offset
            with self._lock:
                dependent = list(self._dependent)
            for task in dependent:
                self._housekeeping.wake(task)
        self._offset = min(self._offset, offset)
        return now + _LOOK_SECONDS
