"""Signals as bytes on a socket: they wake the thread that waits there, whichever thread receives them."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = [
    "RELOAD_SIGNAL",
    "STOP_SIGNALS",
    "children_reaped",
    "ended_children",
    "ignore_signals",
    "signals_for_proxy",
    "signals_to",
]

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals that end a program gracefully."""

RELOAD_SIGNAL = signal.SIGHUP
"""The signal to read files again."""

_MOST_CHILDREN = 1000  # for each call, however fast children end

_stack: list[_Replaced] = []


def signals_for_proxy() -> tuple[signal.Signals, ...]:
    """Return the signals that a proxy handles: those to stop, and the one to reload.

    If the program has a handler of its own for :data:`RELOAD_SIGNAL`, the program keeps it.
    """
    unclaimed = signal.getsignal(RELOAD_SIGNAL) in (signal.SIG_DFL, signal.SIG_IGN, _ignored)
    return (*STOP_SIGNALS, RELOAD_SIGNAL) if unclaimed else STOP_SIGNALS


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
    replaced = _Replaced(waker, numbers)
    _stack.append(replaced)
    try:
        yield
    finally:
        if replaced in _stack:  # a forked child has undone it already
            _stack.remove(replaced)
            replaced.undo()


class _Replaced:
    """Handlers that :func:`signals_to` has replaced, and brings back."""

    def __init__(self, waker: socket.socket, numbers: Collection[signal.Signals]) -> None:
        self._descriptor = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        self.handlers = {number: signal.signal(number, _ignored) for number in numbers}

    def undo(self) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._descriptor)


def ignore_signals(numbers: Collection[signal.Signals]) -> None:
    """Ignore signals whenever no :func:`signals_to` waits for them.

    A program calls it while it serves, so that a late signal cannot spoil its end. A signal that is blocked
    stays for the next :func:`signals_to`. ``SIG_IGN`` would discard it. Has no effect outside the main
    thread.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in numbers:
        outermost = next((one for one in _stack if number in one.handlers), None)
        if outermost:  # it brings the handler back last
            outermost.handlers[number] = _ignored
        else:
            signal.signal(number, _ignored)


def _ignored(number: int, frame: FrameType | None) -> None:
    """Handle a signal by nothing."""


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
    while _stack:
        _stack.pop().undo()


os.register_at_fork(after_in_child=_after_fork)
