"""One point in time that bounds everything done before it."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Clock", "Deadline"]

Clock = Callable[[], float]
"""Returns seconds that never go backwards; ``time.monotonic`` but in tests."""


class Deadline:
    """A wall of time shared by several blocking steps, so that their waits do not add up.

    :param seconds: how far away it is, from now.
    :param clock: where "now" comes from.
    """

    __slots__ = ("_at", "_clock")

    def __init__(self, seconds: float, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._at = clock() + seconds

    def remaining(self) -> float:
        """Return the seconds left.

        :raises TimeoutError: if none are.
        """
        left = self._at - self._clock()
        if left <= 0:
            raise TimeoutError("deadline passed")
        return left

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self._clock() >= self._at

    def __repr__(self) -> str:
        return f"<Deadline {self._at - self._clock():+.3f}s>"
