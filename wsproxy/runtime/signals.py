"""Signals as bytes on a socket, so that whoever waits for one is woken whichever thread gets it."""

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
"""What ends a program in good order."""

RELOAD_SIGNAL = signal.SIGHUP
"""What has a program read its files again."""

_MOST_CHILDREN = 1000  # at a time, however fast they end

_undo_signals: list[Callable[[], None]] = []


def is_unclaimed(number: signal.Signals) -> bool:
    """Whether the program has no handler of its own for a signal."""
    return signal.getsignal(number) in (signal.SIG_DFL, signal.SIG_IGN)


@contextmanager
def signals_to(waker: socket.socket, numbers: Collection[signal.Signals] = STOP_SIGNALS) -> Iterator[None]:
    """Have signals send their numbers to ``waker``; what was before comes back at the end.

    Not by what the handlers do: they run in the main thread alone, and a signal that the kernel gives
    to another thread does not wake a main thread that waits for a lock. The wakeup descriptor is
    written to at once, in whichever thread. Does nothing off the main thread, where Python allows no
    handlers. A forked child has what was before.

    :param waker: gets a byte for each signal, also for those that the program handles itself.
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
        if undo in _undo_signals:  # not in a forked child, where that is done already
            _undo_signals.remove(undo)
            undo()


def ended_children() -> Iterator[tuple[int, int]]:
    """Wait for children that have ended, whoever started them; yield process id and status. Does not block.

    The parent of a process whose own one has ended is PID 1, which in a container is the program.
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
    """Have the kernel forget every child when it ends; see :func:`ended_children`.

    For the main thread of a program that starts no processes itself.
    """
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        for _ in ended_children():  # before this
            pass
        yield
    finally:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def _after_fork() -> None:
    """Undo our signal handling in a forked child: its signals would stop the parent, and not the child."""
    while _undo_signals:
        _undo_signals.pop()()


os.register_at_fork(after_in_child=_after_fork)
