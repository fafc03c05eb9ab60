"""Bounds the requests and bytes of users that have authenticated and open no console. No I/O.

Such requests no longer count as pending clients, and are no sessions, so no other limit bounds them.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable

from ..exceptions import LimitExceeded

__all__ = ["FairShare", "InFlight", "Place"]

_MOST_REQUESTS = 32  # of one user
_MOST_BYTES = 64 * 1024 * 1024  # of screenshots that are being sent; each counts once for each request


class FairShare:
    """Shares an amount among users, so that neither one user nor two get all of it. The caller holds a lock.

    A user gets more only if afterwards at least as much is left as the user had before.

    :param most: the whole amount.
    """

    def __init__(self, most: int) -> None:
        self._left = most
        self._held: Counter[Hashable] = Counter()

    def take(self, user: Hashable, amount: int = 1) -> bool:
        """Give ``amount`` to a user, or nothing; return whether the user got it."""
        left = self._left - amount
        if left < self._held[user]:
            self._forget(user)
            return False
        self._left = left
        self._held[user] += amount
        return True

    def release(self, user: Hashable, amount: int = 1) -> None:
        """Take ``amount`` back from a user."""
        self._left += amount
        self._held[user] -= amount
        self._forget(user)

    def _forget(self, user: Hashable) -> None:
        if not self._held[user]:
            del self._held[user]


class InFlight:
    """Counts the requests that are being answered, by user. Safe from every thread, never blocks."""

    def __init__(self) -> None:
        # Guards the attributes below, and those of places. Held briefly.
        self._lock = threading.Lock()
        self._requests: Counter[Hashable] = Counter()
        self._bytes = FairShare(_MOST_BYTES)

    def enter(self, user: Hashable) -> Place:
        """Count one more request of a user, until its place is released.

        :raises LimitExceeded: if the user has 32 already.
        """
        with self._lock:
            if self._requests[user] >= _MOST_REQUESTS:
                raise LimitExceeded(
                    "requests", "you have reached the limit of concurrent requests", retry_after=2
                )
            self._requests[user] += 1
        return Place(self, user)

    def _hold(self, place: Place, size: int) -> None:
        with self._lock:
            if not self._bytes.take(place._user, size):
                raise LimitExceeded("screenshots", "too many screenshots are being sent", retry_after=2)
            place._size += size

    def _release(self, place: Place) -> None:
        with self._lock:
            if place._released:
                return
            place._released = True
            if place._size:
                self._bytes.release(place._user, place._size)
            self._requests[place._user] -= 1
            if not self._requests[place._user]:
                del self._requests[place._user]


class Place:
    """The place of one request. Safe from every thread, never blocks."""

    def __init__(self, in_flight: InFlight, user: Hashable) -> None:
        self._in_flight = in_flight
        self._user = user
        self._size = 0
        self._released = False

    def hold(self, size: int) -> None:
        """Count the bytes of a screenshot that is about to be sent.

        :raises LimitExceeded: if too few bytes are left for this user, see :class:`FairShare`.
        """
        self._in_flight._hold(self, size)

    def release(self) -> None:
        """Stop counting the request, because its answer has been sent or never will be. Idempotent."""
        self._in_flight._release(self)
