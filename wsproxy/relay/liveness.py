"""Whether the other end of a leg still lives, judged by what is seen of it now and then. No I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Liveness", "Look"]

_DEAD_AFTER_INTERVALS = 2
_PARTS = 8  # of an interval: how often a leg is looked at that takes nothing, and how late is late


@dataclass(frozen=True)
class Look:
    """What there is to see of a leg at one moment.

    :ivar received: bytes that came from it and were read so far.
    :ivar taken: bytes of ours that its kernel has acknowledged so far.
    :ivar reading: whether we read it; not so while its partner takes nothing.
    :ivar blocked: whether somebody waits to send to it.
    :ivar waiting: whether a frame of our own is not with the kernel yet.
    :ivar in_flight: whether the kernel has bytes that its peer has not acknowledged.
    :ivar heard_ago: seconds since bytes came from it, as the kernel knows it; None if it does not.
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

    It is dead if, for two intervals in which it was being read, no byte came while a ping of ours was with
    the kernel, or if for two intervals it took no byte of ours. A leg that is not read because its partner
    takes nothing is not judged; the partner is. Nor is a ping unanswered that has to wait in our kernel's
    buffer behind what the peer is still taking.

    Looking once in each interval is enough for a leg that answers. Where the kernel knows when bytes came and
    went, a leg that does not is found two intervals after the last one, and not in the third.

    :param interval: seconds between two pings.
    :param now: the clock's reading, as in every call.
    :ivar due: when to look again, apart from the pings; ``math.inf`` if there is no need.
    """

    def __init__(self, interval: float, now: float) -> None:
        self._interval = interval
        self._patience = _DEAD_AFTER_INTERVALS * interval
        self._last, self._looked_at = Look(), now
        self._quiet_since = now  # no byte came since, though one could have
        self._asked_since: float | None = None  # no byte came since this ping
        self._stuck_since: float | None = None  # it took nothing since, though there was something
        self._expected = now + interval
        self._confirming = False
        self.due = math.inf

    def asked(self, now: float) -> None:
        """Take note of a ping."""
        if self._asked_since is None:
            self._asked_since = now
        self._plan(now)

    def look(self, now: float, seen: Look) -> str:
        """Return how the leg shows that it is dead, "" if it does not."""
        self._note(now, seen)
        # Late: it is we who were stopped, and what came meanwhile may not have been read yet.
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
        """Return when something happened that had not happened at the last look: now, or earlier."""
        return now if ago is None else min(now, max(self._looked_at, now - ago))

    def _dead_at(self) -> float:
        """Return when the leg is dead if nothing more happens."""
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
