"""Decides whether the peer of a leg is dead, from what periodic looks at the leg show. No I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Liveness", "Look"]

_DEAD_AFTER_INTERVALS = 2
_PARTS = 8  # looks per interval at a leg that takes nothing; a look that is later than one part is late


@dataclass(frozen=True)
class Look:
    """The state of a leg at one moment.

    :ivar received: bytes that the proxy has read from it so far.
    :ivar taken: bytes from the proxy that its peer's kernel has acknowledged so far.
    :ivar reading: whether the proxy reads it; it does not while the other leg takes nothing.
    :ivar blocked: whether a thread waits to send to it.
    :ivar waiting: whether a frame of the proxy's own has not reached the kernel yet.
    :ivar in_flight: whether the kernel has bytes that the peer's kernel has not acknowledged.
    :ivar heard_ago: seconds since bytes came from it, by the kernel; None if the kernel does not say.
    :ivar sent_ago: seconds since bytes were sent to it, likewise.
    """

    received: int = 0
    taken: int = 0
    reading: bool = True
    blocked: bool = False
    waiting: bool = False
    in_flight: bool = False
    heard_ago: float | None = None
    sent_ago: float | None = None


class Liveness:
    """Judges one leg.

    It is dead in one of two cases. Either the proxy read it for two intervals with a ping in the kernel, and
    no byte came. Or its peer's kernel acknowledged no byte of the proxy for two intervals. If the proxy does
    not read a leg because the other leg takes nothing, only the other leg is judged. A ping does not count as
    unanswered if it waits in our kernel's buffer behind data that the peer is still taking.

    For a leg that answers, one look in each interval is enough. If the kernel knows when bytes last came and
    went, a dead leg is found two intervals after its last byte. Otherwise it is found in the third interval.

    :param interval: seconds between two pings.
    :param now: the clock's reading, as in every call.
    :ivar due: when to look again, apart from the looks at each ping; ``math.inf`` if there is no need.
    """

    def __init__(self, interval: float, now: float) -> None:
        self._interval = interval
        self._patience = _DEAD_AFTER_INTERVALS * interval
        self._last, self._looked_at = Look(), now
        self._quiet_since = now  # since then no byte came, though one could have
        self._asked_since: float | None = None  # when the first ping went out that no byte has followed
        self._stuck_since: float | None = None  # since then it took nothing, though bytes were waiting
        self._expected = now + interval
        self._confirming = False
        self.due = math.inf

    def asked(self, now: float) -> None:
        """Note that a ping was sent."""
        if self._asked_since is None:
            self._asked_since = now
        self._plan(now)

    def look(self, now: float, seen: Look) -> str:
        """Judge the leg; return the sign that it is dead, "" if there is none."""
        self._note(now, seen)
        # A late look means that our own process was stopped: bytes that came meanwhile may still be unread.
        late = now > self._expected + self._interval / _PARTS
        self._confirming = late and not self._confirming
        self._last, self._looked_at = seen, now
        verdict = "" if self._confirming else self._verdict(now)
        self._plan(now)
        return verdict

    def _note(self, now: float, seen: Look) -> None:
        last = self._last
        heard, moved = seen.received != last.received, seen.taken != last.taken
        if heard:
            self._asked_since = None
            self._quiet_since = self._since(now, seen.heard_ago)
        if not (seen.reading and last.reading) or seen.waiting or (seen.in_flight and moved):
            self._quiet_since = now
        if not seen.blocked:
            self._stuck_since = None
        elif moved or self._stuck_since is None:
            self._stuck_since = self._since(now, seen.sent_ago)

    def _since(self, now: float, ago: float | None) -> float:
        """Return when an event happened that this look finds: now, unless the kernel knows the time."""
        return now if ago is None else min(now, max(self._looked_at, now - ago))

    def _dead_at(self) -> float:
        """Return when the leg counts as dead if nothing more happens."""
        silent = stuck = math.inf
        if self._asked_since is not None:
            silent = max(self._quiet_since + self._patience, self._asked_since + self._interval)
        if self._stuck_since is not None:
            stuck = self._stuck_since + self._patience
        return min(silent, stuck)

    def _verdict(self, now: float) -> str:
        if self._stuck_since is not None and now >= self._stuck_since + self._patience:
            return "takes nothing"
        return "no answer" if now >= self._dead_at() else ""

    def _plan(self, now: float) -> None:
        """Decide when to look again."""
        part = now + self._interval / _PARTS
        if self._confirming:
            self.due = part
        elif self._stuck_since is not None:
            self.due = min(part, self._dead_at())
        else:
            self.due = self._dead_at()
        self._expected = min(self.due, now + self._interval)
