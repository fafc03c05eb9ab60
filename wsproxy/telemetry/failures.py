"""Counts every unexpected exception, and logs only some of them, so that they do not flood the log."""

from __future__ import annotations

import logging
import threading
import time

from ..runtime.deadline import Clock
from .counters import Counters

__all__ = ["Failures"]

_MOST_LINES = 5  # in a second, because a client can repeat a request that raises
_SECOND = 1.0


class Failures:
    """Reports exceptions that are bugs of the proxy or of a hook. Safe from every thread.

    :param counters: counts each of them.
    :param clock: seconds that never go backwards.
    """

    def __init__(self, counters: Counters, clock: Clock = time.monotonic) -> None:
        self._counters = counters
        self._clock = clock
        # Guards the attributes below. Held briefly.
        self._lock = threading.Lock()
        self._since = clock()  # when the current second began
        self._lines = self._unlogged = 0

    def report(self, logger: logging.Logger, message: str, *args: object) -> None:
        """Count the exception that is being handled, and log it with a bounded traceback.

        At most five exceptions in a second are logged. The next one says how many were not. Never raises;
        blocks on nothing but the log.

        :param message: one line, which :mod:`logging` formats with ``args``.
        """
        self._counters.fail()
        with self._lock:
            if self._clock() >= self._since + _SECOND:
                self._since, self._lines = self._clock(), 0
            self._lines += 1
            if self._lines > _MOST_LINES:
                self._unlogged += 1
                return
            unlogged, self._unlogged = self._unlogged, 0
        more = f" ({unlogged} more were not logged)" if unlogged else ""
        logger.error(message + more, *args, exc_info=True)
