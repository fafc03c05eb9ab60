"""The proxy's own pings on one leg: their payloads, and which Pongs answer them. No I/O."""

from __future__ import annotations

import os
import threading

from ..protocol.frames import AWAITED_SIZE, FrameScanner

__all__ = ["Pings"]

_NONCE_SIZE = 4
_MOST_UNANSWERED = 64


class Pings:
    """Numbers the pings, and makes the scanner stop at the Pongs that answer them.

    A ping is answered once. If a Pong comes again, or answers none of the last 64 pings, the scanner lets it
    pass like any other Pong. So a peer that repeats a Pong costs no more than a peer that sends data.

    :param scanner: scans what the leg sends.
    """

    def __init__(self, scanner: FrameScanner) -> None:
        self._scanner = scanner
        # Guards every attribute below, and the assignments to the scanner. Held for assignments only.
        self._lock = threading.Lock()
        self._last = 0  # the last ping's payload as a number; 0 before the first
        self._unanswered: tuple[int, ...] = ()
        self._sent_at = 0.0  # when the last ping was sent

    def next(self, now: float) -> bytes:
        """Return the next ping's payload: a random number of this leg, and the number of the ping.

        Call it before the ping is sent, and from one thread only.

        :param now: the clock's reading.
        """
        with self._lock:
            self._last = (self._last or int.from_bytes(os.urandom(_NONCE_SIZE), "big") << 32) + 1
            self._sent_at = now
            self._expect((*self._unanswered, self._last)[-_MOST_UNANSWERED:])
            return self._last.to_bytes(AWAITED_SIZE, "big")

    def answered(self, payload: bytes, now: float) -> float | None:
        """Note a Pong that the scanner stopped at. Any thread.

        :returns: the seconds since the last ping, if the Pong answers that one; else None.
        """
        number = int.from_bytes(payload, "big")
        with self._lock:
            self._expect(tuple(one for one in self._unanswered if one != number))
            return now - self._sent_at if number == self._last else None

    def _expect(self, unanswered: tuple[int, ...]) -> None:
        self._unanswered = unanswered
        self._scanner.awaited = frozenset(unanswered)
