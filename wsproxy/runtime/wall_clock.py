"""UNIX time, for the validity of tokens, on machines whose clock may be set. No I/O."""

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
    """Return UNIX time by the system's clock, seconds."""
    return time.time()


class WallClock:
    """UNIX time that never decreases: it is the latest time ever read. Safe from every thread.

    If it decreased, expired tokens would become valid again. So would revoked tokens that the proxy forgot
    because they had expired.

    :param read: returns UNIX time, seconds.
    """

    def __init__(self, read: Clock = unix_time) -> None:
        self._read = read
        self._lock = threading.Lock()  # guards the attributes below
        self._latest = -math.inf
        self._is_behind = False

    def __call__(self) -> float:
        """Return the time. Does not block. Logs once when it finds that the clock was set back."""
        with self._lock:
            now = self._read()
            behind = self._latest - now
            self._latest = latest = max(self._latest, now)
            news = behind > _NOTEWORTHY and not self._is_behind
            self._is_behind = behind > 0 and (self._is_behind or news)
        if news:
            logger.warning(
                "the clock was set back by %.0f s; until it catches up, the latest time read decides whether "
                "tokens are valid",
                behind,
            )
        return latest
