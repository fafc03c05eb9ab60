"""Lets many calls pass at a time, or one publication alone. No I/O."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ...exceptions import StoreUnavailable

__all__ = ["Gate"]


class Gate:
    """Separates calls about single sessions from what concerns all. Safe from every thread.

    A publication says what a process holds. A call that overlaps it could say the opposite.

    :param seconds: for how long a call waits for a publication, and a publication for the calls.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # Guards the attributes below; notified when they fall.
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False
        self._entered = 0

    @property
    def entered(self) -> int:
        """How many calls there have been so far."""
        return self._entered

    @property
    def is_empty(self) -> bool:
        """Whether no call is under way."""
        return not self._inside

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Context manager for a call. Blocks while a publication is under way.

        :raises StoreUnavailable: if that takes too long.
        """
        with self._changed:
            if self._closed and not self._changed.wait_for(lambda: not self._closed, self._seconds):
                raise StoreUnavailable("the store is being told what this process holds")
            self._inside += 1
            self._entered += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                if self._closed:
                    self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Context manager for a publication. Blocks while calls are under way, but they have a timeout.

        One thread at a time may use it.
        """
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._inside, self._seconds)
        try:
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()
