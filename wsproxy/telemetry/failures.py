"""Exceptions that nobody expected: each is counted, and few of them at a time fill the log."""

from __future__ import annotations

import logging
import threading
import time

from ..runtime.deadline import Clock
from .counters import Counters

__all__ = ["Failures"]

_MOST_LINES = 5  # a second: a request that raises can be sent again and again
_SECOND = 1.0


class Failures:
    """Reports on exceptions that are a bug, of the proxy's or of a hook's. Safe from every thread.

    :param counters: told of each.
    :param clock: seconds that never go backwards.
    """

    def __init__(self, counters: Counters, clock: Clock = time.monotonic) -> None:
        self._counters = counters
        self._clock = clock
        # Guards the attributes below. Held for moments only.
        self._lock = threading.Lock()
        self._since = clock()  # when the second began that is counted in
        self._lines = self._unlogged = 0

    def report(self, logger: logging.Logger, message: str, *args: object) -> None:
        """Count the exception that is being handled, and log it with a bounded traceback.

        Only five in a second are logged; the next one after that says how many were not. Never raises; blocks
        as the log does.

        :param message: one line, as :mod:`logging` has it with ``args``.
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
