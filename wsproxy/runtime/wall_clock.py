"""UNIX time, by which tokens are valid, where somebody may set the clock. No I/O."""

from __future__ import annotations

import math
import threading
import time

from .deadline import Clock
from .logs import get_logger

__all__ = ["WallClock", "unix_time"]

logger = get_logger("wsproxy.clock")

_NOTEWORTHY = 1.0  # seconds; corrections by NTP are mostly smaller


def unix_time() -> float:
    """Return what the clock says, seconds."""
    return time.time()


class WallClock:
    """UNIX time that never goes back: the latest time that was ever read counts. Safe from every thread.

    If it went back, what has expired, or was forgotten because it had expired, would be valid again.

    :param read: UNIX time, seconds.
    """

    def __init__(self, read: Clock = unix_time) -> None:
        self._read = read
        self._lock = threading.Lock()  # guards the attributes below
        self._latest = -math.inf
        self._is_behind = False

    def __call__(self) -> float:
        """Return the time. Does not block; logs once when the clock turns out to have been set back."""
        with self._lock:
            now = self._read()
            behind = self._latest - now
            self._latest = latest = max(self._latest, now)
            news = behind > _NOTEWORTHY and not self._is_behind
            self._is_behind = behind > 0 and (self._is_behind or news)
        if news:
            logger.warning(
                "the clock was set back by %.0f s; until it has caught up, tokens are judged by the latest "
                "time seen",
                behind,
            )
        return latest
