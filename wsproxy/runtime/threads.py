"""Starting threads, with a small stack and a known owner."""

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

__all__ = ["ThreadPool", "current_owner", "replaced_by", "start_thread", "thread_pools", "working_for"]

STACK_SIZE = 512 * 1024
"""Bytes. A session recurses little; what JSON may nest is bounded by :mod:`wsproxy.protocol.strict_json`."""

_IDLE_SECONDS = 2.0
_MAX_IDLE = 8

# Guards threading.stack_size(), which is one setting for the whole process. Taken over a fork: a child must
# find neither the lock held by a thread that it does not have, nor our stack size.
_lock = threading.RLock()
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
_current = threading.local()


_pools: weakref.WeakSet[ThreadPool] = weakref.WeakSet()  # guarded by _lock


def thread_pools() -> list[ThreadPool]:
    """Return the pools of this process that somebody still has."""
    with _lock:
        return list(_pools)


def current_owner() -> object | None:
    """Return the owner of the calling thread, None for a thread that works for somebody else."""
    return getattr(_current, "owner", None)


@contextmanager
def working_for(owner: object) -> Iterator[None]:
    """Let ``owner`` own the calling thread meanwhile, which was not started here."""
    before = current_owner()
    _current.owner = owner
    try:
        yield
    finally:
        _current.owner = before


def replaced_by() -> str | None:
    """Return the library that has put something else in the place of Python's threads; None if none has.

    Under such a library nothing here works: sockets and epoll are others, and what never blocks does.
    """
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent and gevent.is_module_patched("threading"):
        return "gevent"
    return "eventlet" if eventlet and eventlet.is_monkey_patched("thread") else None


def start_thread(
    name: str, target: Callable[[], object], owner: object, *, daemon: bool = True
) -> threading.Thread:
    """Start a thread and return it; whoever starts it joins it.

    :param owner: what the thread works for, see :func:`current_owner`.
    :param daemon: False to have the interpreter wait for the thread when the program ends.
    :raises RuntimeError: if the system will not start one more.
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


_Job = tuple[str, Callable[[], None]]


class _IdleThread(NamedTuple):
    """One that waits for a job, and where it is put."""

    thread: threading.Thread
    jobs: queue.SimpleQueue[_Job | None]


class ThreadPool:
    """Threads that are used again: to start one for each connection would be a fifth of an opening's cost.

    It never makes anybody wait: a thread is started whenever none is idle. Few stay idle, and not for long.

    :param owner: what the threads work for, see :func:`current_owner`.
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
        """The threads that wait for the next job, none once it is stopped. Any thread; does not block."""
        with self._lock:
            return set() if self._stopping else {idle.thread for idle in self._idle}

    def run(self, name: str, target: Callable[[], None]) -> None:
        """Have a thread run ``target``, named ``name`` meanwhile. Any thread; does not block.

        :raises RuntimeError: if the system will not start one more.
        """
        with self._lock:
            idle = self._idle.pop() if self._idle else None
        jobs: queue.SimpleQueue[_Job | None] = idle.jobs if idle else queue.SimpleQueue()
        jobs.put((name, target))
        if idle is None:
            start_thread(name, lambda: self._work(jobs), self._owner)

    def stop(self, timeout: float) -> None:
        """End the idle threads, and the others when they are done; wait at most ``timeout`` seconds."""
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
                del target, job  # not to be kept alive by an idle thread
                this.name = "wsproxy-idle"
                job = self._next(jobs)
        finally:
            with self._lock:
                self._threads.discard(this)

    def _next(self, jobs: queue.SimpleQueue[_Job | None]) -> _Job | None:
        """Be idle until there is something to do; return None to end."""
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
        return jobs.get()  # which was put, or is about to be
