"""One point in time that bounds all steps of an operation."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Clock", "Deadline", "since_boot"]

Clock = Callable[[], float]
"""Returns seconds that never decrease; ``time.monotonic`` or :func:`since_boot`, except in tests."""


_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # other systems' clock does not stop


def since_boot() -> float:
    """Return seconds that never decrease, and that pass also while the machine is suspended."""
    return time.clock_gettime(_BOOT_CLOCK)


class Deadline:
    """A deadline that several blocking steps share, so that their timeouts do not add up.

    :param seconds: seconds from now to the deadline.
    :param clock: returns the current time, seconds.
    """

    __slots__ = ("_at", "_clock")

    def __init__(self, seconds: float, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._at = clock() + seconds

    def remaining(self) -> float:
        """Return the seconds until the deadline. Does not block.

        :raises TimeoutError: if the deadline has passed.
        """
        left = self._at - self._clock()
        if left <= 0:
            raise TimeoutError("deadline passed")
        return left

    @property
    def passed(self) -> bool:
        """Whether the deadline has passed."""
        return self._clock() >= self._at

    def __repr__(self) -> str:
        return f"<Deadline {self._at - self._clock():+.3f}s>"
