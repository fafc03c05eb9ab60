"""Starts threads with a small stack and a known owner."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from .deadline import Clock
from .logs import Complaints, get_logger

__all__ = [
    "ThreadPool",
    "VitalLoop",
    "current_owner",
    "replaced_by",
    "start_thread",
    "thread_pools",
    "working_for",
]

logger = get_logger("wsproxy.threads")

STACK_SIZE = 512 * 1024
"""Bytes. A session recurses little, and :mod:`wsproxy.protocol.strict_json` bounds the nesting of JSON."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # seconds from an error until a vital thread continues
_FAILURES = 5  # in a row; from then on the loop counts as unhealthy
_GOOD_SECONDS = 5.0  # without an error, after which earlier errors no longer count

_IDLE_SECONDS = 2.0
_MAX_IDLE = 8

# Guards threading.stack_size(), a setting of the whole process. The forking thread holds the lock during the
# fork. Otherwise a child could inherit this stack size, or a lock that no thread of the child releases.
_lock = threading.RLock()
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
_current = threading.local()


_pools: weakref.WeakSet[ThreadPool] = weakref.WeakSet()  # guarded by _lock


def thread_pools() -> list[ThreadPool]:
    """Return the pools of this process that are still referenced."""
    with _lock:
        return list(_pools)


def current_owner() -> object | None:
    """Return the owner of the calling thread; None for a thread that another library started."""
    return getattr(_current, "owner", None)


@contextmanager
def working_for(owner: object) -> Iterator[None]:
    """Context manager: ``owner`` owns the calling thread, which another library started."""
    before = current_owner()
    _current.owner = owner
    try:
        yield
    finally:
        _current.owner = before


def replaced_by() -> str | None:
    """Return the library that has replaced Python's threads by its own, "gevent" or "eventlet"; else None.

    The proxy does not work with such a library. It also replaces sockets and epoll, and calls may block that
    must not.
    """
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent and gevent.is_module_patched("threading"):
        return "gevent"
    return "eventlet" if eventlet and eventlet.is_monkey_patched("thread") else None


def start_thread(
    name: str, target: Callable[[], object], owner: object, *, daemon: bool = True
) -> threading.Thread:
    """Start a thread and return it. The caller joins it.

    :param owner: the object that the thread works for, see :func:`current_owner`.
    :param daemon: False if the interpreter has to wait for the thread when the program ends.
    :raises RuntimeError: if the system cannot start another thread.
    """

    def run() -> None:
        _current.owner = owner
        target()

    thread = threading.Thread(target=run, name=name, daemon=daemon)
    with _lock:
        before = threading.stack_size(STACK_SIZE)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    return thread


class VitalLoop:
    """The loop of a thread that all others need. An unexpected error does not end it.

    :param name: name in the log.
    :param target: works until the program tells it to end, and then returns. If it raises, the loop logs the
        error and calls it again, after a pause.
    :param clock: seconds for :attr:`is_healthy`.
    """

    def __init__(self, name: str, target: Callable[[], object], clock: Clock = time.monotonic) -> None:
        self._name = name
        self._target = target
        self._clock = clock
        self._complaints = Complaints(logger, clock)
        self._stopping = threading.Event()
        # Only the loop's thread assigns these.
        self._over = False
        self._failures = 0
        self._resumed = clock()

    @property
    def is_healthy(self) -> bool:
        """Whether the loop works, or is stopped. False if its thread has ended, or fails repeatedly."""
        works = self._failures < _FAILURES or self._is_good()
        return self._stopping.is_set() or (works and not self._over)

    def run(self) -> None:
        """Call the target until it returns, or until :meth:`stop`. For the loop's thread; blocks."""
        try:
            while not self._stopping.is_set() and not self._is_done():
                self._stopping.wait(min(_FIRST_PAUSE * 2 ** min(self._failures, 10), _LONGEST_PAUSE))
        finally:
            self._over = True

    def stop(self) -> None:
        """Do not call the target again. The caller has to end a call under way. Does not block."""
        self._stopping.set()

    def _is_done(self) -> bool:
        self._resumed = self._clock()
        try:
            self._target()
        except BaseException:  # noqa: BLE001 - SystemExit, too, would end the thread without a log line
            self._failures = 1 if self._is_good() else self._failures + 1
            self._complaints.note(f"unexpected error; {self._name} continues")
            return False
        return True

    def _is_good(self) -> bool:
        return self._clock() - self._resumed >= _GOOD_SECONDS


_Job = tuple[str, Callable[[], None]]


class _IdleThread(NamedTuple):
    """A thread that waits for a job, and the queue where the pool puts one."""

    thread: threading.Thread
    jobs: queue.SimpleQueue[_Job | None]


class ThreadPool:
    """Reuses threads. To start one for each connection would take a fifth of an opening's time.

    No job has to wait: if no thread is idle, the pool starts one. At most 8 threads stay idle, for 2 s.

    :param owner: the object that the threads work for, see :func:`current_owner`.
    """

    def __init__(self, owner: object) -> None:
        self._owner = owner
        # Guards the attributes below.
        self._lock = threading.Lock()
        self._idle: list[_IdleThread] = []  # the latest one last
        self._threads: set[threading.Thread] = set()
        self._stopping = False
        with _lock:
            _pools.add(self)

    @property
    def idle_threads(self) -> set[threading.Thread]:
        """The threads that wait for a job; empty after :meth:`stop`. Any thread; does not block."""
        with self._lock:
            return set() if self._stopping else {idle.thread for idle in self._idle}

    def run(self, name: str, target: Callable[[], None]) -> None:
        """Have a thread run ``target``, and give it ``name`` meanwhile. Any thread; does not block.

        :raises RuntimeError: if the system cannot start another thread.
        """
        with self._lock:
            idle = self._idle.pop() if self._idle else None
        jobs: queue.SimpleQueue[_Job | None] = idle.jobs if idle else queue.SimpleQueue()
        jobs.put((name, target))
        if idle is None:
            start_thread(name, lambda: self._work(jobs), self._owner)

    def stop(self, timeout: float) -> None:
        """End the idle threads, and the others after their jobs. Blocks for at most ``timeout`` seconds."""
        with self._lock:
            self._stopping = True
            for idle in self._idle:
                idle.jobs.put(None)
            self._idle.clear()
            threads = list(self._threads)
        until = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self, jobs: queue.SimpleQueue[_Job | None]) -> None:
        this = threading.current_thread()
        with self._lock:
            self._threads.add(this)
        try:
            job = jobs.get()
            while job is not None:
                this.name, target = job
                target()
                del target, job  # so that an idle thread keeps no object alive
                this.name = "wsproxy-idle"
                job = self._next(jobs)
        finally:
            with self._lock:
                self._threads.discard(this)

    def _next(self, jobs: queue.SimpleQueue[_Job | None]) -> _Job | None:
        """Wait as an idle thread and return the next job; None if the thread has to end."""
        with self._lock:
            if self._stopping or len(self._idle) >= _MAX_IDLE:
                return None
            idle = _IdleThread(threading.current_thread(), jobs)
            self._idle.append(idle)
        try:
            return jobs.get(timeout=_IDLE_SECONDS)
        except queue.Empty:
            pass
        with self._lock:
            if idle in self._idle:
                self._idle.remove(idle)
                return None
        return jobs.get()  # run() has taken this thread, and puts a job or has put it
