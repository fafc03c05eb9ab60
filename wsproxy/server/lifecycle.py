"""Handles the signals of a process that serves: it reloads, drains, or stops at once.

:class:`.WebsocketProxy` and a worker share this. Both wait for bytes on a socket, to which
:func:`.signals_to` sends the numbers of signals.
"""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable, Collection

from ..config import Config
from ..runtime.signals import RELOAD_SIGNAL
from ..runtime.threads import start_thread

__all__ = ["STOPPED", "log_reload", "name_of", "next_event", "stop_in_good_order", "warn_of_handover"]

STOPPED = 0
"""The byte that means that the server has stopped; no signal has this number."""


def next_event(woken: socket.socket, numbers: Collection[int]) -> int:
    """Wait for one of these signals, or :data:`STOPPED`, and return its number. Blocks until one comes.

    :param woken: the other end of the socket that :func:`.signals_to` got.
    """
    while True:
        number = woken.recv(1)[0]
        if number in (*numbers, STOPPED):  # other numbers are signals with handlers of the program's own
            return number


def warn_of_handover(config: Config, logger: logging.Logger) -> None:
    """Log that the processes of a handover share no state, if that is so."""
    if not config.is_state_shared:
        logger.warning(
            "reuse_port is on and state is memory: limits, tickets, console rules and revoked tokens do not "
            "pass from an old process to a new one; set state to local:PATH or to a Redis"
        )


def log_reload(logger: logging.Logger) -> None:
    """Log that a signal made the process read its files again."""
    logger.info("%s: keys and certificates read again, log files reopened", RELOAD_SIGNAL.name)


def stop_in_good_order(
    stop: Callable[[], None],
    hurry: Callable[[], None],
    waker: socket.socket,
    await_event: Callable[[], int | None],
    owner: object,
    logger: logging.Logger,
) -> None:
    """Drain as the settings say, or stop at once if another signal to stop comes.

    Blocks until the server has stopped, or until ``stop`` has failed, which is logged.

    :param stop: stops the server, however long that takes. It runs in another thread, because a thread that
        waits for a lock may sleep through a signal.
    :param hurry: ends the waits of ``stop``; idempotent.
    :param waker: the other end of the socket that ``await_event`` reads; gets :data:`STOPPED` when ``stop``
        is done.
    :param await_event: waits for the next signal to stop on, :data:`STOPPED`, or None (no supervisor).
    :param owner: the object that the other thread works for.
    """

    def stop_and_tell() -> None:
        try:
            stop()
        except BaseException:  # logged here, because no other thread sees it
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
    """Return the name of a signal to stop on, for the log; None means that the supervisor is gone."""
    return "the supervisor is gone" if number is None else signal.Signals(number).name
