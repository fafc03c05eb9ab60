"""What a process that serves does on its signals: read its files again, stop in good order, stop at once.

:class:`.WebsocketProxy` and a worker have it in common. Both wait for bytes on a socket, where
:func:`.signals_to` sends the numbers of signals.
"""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable, Collection

from ..runtime.signals import RELOAD_SIGNAL
from ..runtime.threads import start_thread

__all__ = ["STOPPED", "log_reload", "name_of", "next_event", "stop_in_good_order"]

STOPPED = 0
"""The byte that says that the server has stopped; no signal has that number."""


def next_event(woken: socket.socket, numbers: Collection[int]) -> int:
    """Wait for one of these signals, or :data:`STOPPED`, and return its number. Blocks for as long.

    :param woken: the other end of what :func:`.signals_to` was given.
    """
    while True:
        number = woken.recv(1)[0]
        if number in (*numbers, STOPPED):  # others are of the program's own handlers
            return number


def log_reload(logger: logging.Logger) -> None:
    """Say that a signal had files read again."""
    logger.info("%s: keys and certificates read again, log files opened anew", RELOAD_SIGNAL.name)


def stop_in_good_order(
    stop: Callable[[], None],
    hurry: Callable[[], None],
    waker: socket.socket,
    await_event: Callable[[], int | None],
    owner: object,
    logger: logging.Logger,
) -> None:
    """Let sessions end as the settings say, or stop at once if there is one more reason to.

    Blocks until the server has stopped, or ``stop`` has failed, which is logged.

    :param stop: stops the server, however long that takes. It runs in another thread, because one that waits
        for a lock may sleep through a signal.
    :param hurry: ends the waiting of ``stop``; idempotent.
    :param waker: the other end of what ``await_event`` waits for; it is told when ``stop`` is over.
    :param await_event: returns the next signal to stop on, :data:`STOPPED`, or None without a supervisor.
    :param owner: whose thread that is.
    """

    def stop_and_tell() -> None:
        try:
            stop()
        except BaseException:  # else nobody would ever wake the thread that waits
            logger.exception("stopping failed")
        finally:
            waker.send(bytes([STOPPED]))

    stopper = start_thread("wsproxy-stop", stop_and_tell, owner)
    try:
        if (number := await_event()) != STOPPED:
            logger.info("%s: stopping now", name_of(number))
    finally:
        hurry()
        stopper.join()


def name_of(number: int | None) -> str:
    """Return the name of a signal to stop on; None stands for the end of the supervisor."""
    return "the supervisor is gone" if number is None else signal.Signals(number).name
