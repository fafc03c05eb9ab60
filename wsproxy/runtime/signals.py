"""Signals as bytes on a socket: they wake the thread that waits there, whichever thread receives them."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

__all__ = [
    "RELOAD_SIGNAL",
    "STOP_SIGNALS",
    "children_reaped",
    "ended_children",
    "is_unclaimed",
    "signals_to",
]

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals that end a program gracefully."""

RELOAD_SIGNAL = signal.SIGHUP
"""The signal to read files again."""

_MOST_CHILDREN = 1000  # for each call, however fast children end

_undo_signals: list[Callable[[], None]] = []


def is_unclaimed(number: signal.Signals) -> bool:
    """Whether the program has no handler of its own for a signal."""
    return signal.getsignal(number) in (signal.SIG_DFL, signal.SIG_IGN)


@contextmanager
def signals_to(waker: socket.socket, numbers: Collection[signal.Signals] = STOP_SIGNALS) -> Iterator[None]:
    """Context manager: signals send their numbers to ``waker``. At its end the old handlers come back.

    Handlers alone do not suffice. Python runs them in the main thread. If the kernel delivers a signal to
    another thread, a main thread that waits for a lock does not wake. But each thread writes to the wakeup
    descriptor at once. Has no effect outside the main thread, where Python permits no handlers. A forked
    child gets the old handlers back.

    :param waker: gets a byte for each signal, also for signals that the program handles itself.
    :param numbers: the signals whose handlers are replaced by empty ones.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waker.setblocking(False)
    descriptor = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda number, frame: None) for number in numbers}

    def undo() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(descriptor)

    _undo_signals.append(undo)
    try:
        yield
    finally:
        if undo in _undo_signals:  # a forked child has undone it already
            _undo_signals.remove(undo)
            undo()


def ended_children() -> Iterator[tuple[int, int]]:
    """Reap children that have ended, and yield the process id and status of each. Does not block.

    That includes children which the program did not start: orphans become children of PID 1, which in a
    container is the program.
    """
    for _ in range(_MOST_CHILDREN):
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, status


@contextmanager
def children_reaped() -> Iterator[None]:
    """Context manager: the kernel reaps every child when it ends; see :func:`ended_children`.

    For the main thread of a program that starts no processes itself.
    """
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        for _ in ended_children():  # before SIGCHLD was ignored
            pass
        yield
    finally:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def _after_fork() -> None:
    """Undo the signal handling in a forked child, whose signals would stop the parent otherwise."""
    while _undo_signals:
        _undo_signals.pop()()


os.register_at_fork(after_in_child=_after_fork)
