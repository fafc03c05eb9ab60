"""One-time tickets: random path segments, each of which stands for a verified token once, for 30 seconds.

With a ticket, the token itself is in no URL, so no log, browser history or Referer header keeps it. No I/O.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass

from ..exceptions import BadToken, Busy, Forbidden, LimitExceeded
from ..protocol.origin import Origin
from ..runtime.deadline import Clock
from ..runtime.wall_clock import unix_time
from ..tokens.claims import Grant

__all__ = ["Ticket", "Tickets"]

_SECONDS = 30.0
_BYTES = 16  # 128 bits: too many to guess one of 10,000 tickets in 30 seconds
_MAX_PER_USER = 16
_MAX = 10_000
# How many failed attempts an unknown ticket counts as: guessing is hopeless, but any page can invent tickets.
_ATTEMPTS = 0.1


@dataclass(frozen=True)
class Ticket:
    """What a ticket stands for.

    :ivar grant: the grant of the token that it was issued for, narrowed to one VMI.
    :ivar subresource: the only one that it opens.
    :ivar origin: the origin of the page that may redeem it; None for a client that sends no Origin.
    """

    grant: Grant
    subresource: str
    origin: Origin | None


class Tickets:
    """The unused and unexpired tickets of one process. Safe from every thread, never blocks.

    It stores only their SHA-256, and looks tickets up by it. The time of a look-up by hash reveals nothing.

    :param clock: seconds that never go backwards.
    :param wall_clock: UNIX time, seconds.
    """

    def __init__(self, clock: Clock = time.monotonic, wall_clock: Clock = unix_time) -> None:
        self._lock = threading.Lock()  # guards the attributes below
        self._clock = clock
        self._wall_clock = wall_clock
        # By digest, with the time of issue, the oldest first. A plain dict finds its first key slowly.
        self._tickets: OrderedDict[bytes, tuple[float, Ticket]] = OrderedDict()
        self._per_user: Counter[str | int] = Counter()

    def __len__(self) -> int:
        return len(self._tickets)

    def issue(self, ticket: Ticket) -> tuple[str, float]:
        """Make a ticket valid.

        :returns: its text, and the seconds for which it is valid: 30, or less if its token expires before.
        :raises LimitExceeded: if its user has 16 unused tickets already.
        :raises Busy: if there are 10,000 unused tickets in all.
        """
        text, user = secrets.token_urlsafe(_BYTES), ticket.grant.user
        with self._lock:
            now = self._drop_expired()
            if self._per_user[user] >= _MAX_PER_USER:
                raise LimitExceeded("tickets", "you have too many unused tickets", retry_after=int(_SECONDS))
            if len(self._tickets) >= _MAX:
                raise Busy("there are too many unused tickets", retry_after=int(_SECONDS))
            self._tickets[_digest(text)] = now, ticket
            self._per_user[user] += 1
        return text, min(_SECONDS, ticket.grant.seconds_left(self._wall_clock()))

    def redeem(self, text: str, subresource: str, origin: str | None) -> Grant:
        """Use a ticket up, and return what it grants. If several threads redeem one ticket, only one gets it.

        The ticket is used up even if this raises.

        :param subresource: the one that the client wants to open.
        :param origin: the Origin header; None without one.
        :raises BadToken: if the ticket is unknown, used or expired.
        :raises Forbidden: if it was issued for another subresource, or to another page.
        """
        with self._lock:
            self._drop_expired()
            ticket = self._take(_digest(text))
        if ticket is None:
            raise BadToken("the ticket is unknown, used or expired", attempts=_ATTEMPTS)
        page = None if origin is None else Origin.parse(origin)
        no_page = page is None and origin is not None  # such as "null", which differs from no Origin
        if no_page or page != ticket.origin or subresource != ticket.subresource:
            raise Forbidden("the ticket was issued for another page or subresource")
        return ticket.grant

    def discard(self, text: str) -> None:
        """Use a ticket up without a grant, if it exists."""
        with self._lock:
            self._take(_digest(text))

    def _drop_expired(self) -> float:
        """Drop the expired tickets, and return the time. Needs the lock.

        They stand first, because all tickets are valid for equally long.
        """
        now = self._clock()
        while self._tickets:
            digest, (issued, _) = next(iter(self._tickets.items()))
            if now - issued < _SECONDS:
                break
            self._take(digest)
        return now

    def _take(self, digest: bytes) -> Ticket | None:
        """Remove a ticket and return it; None if there is none. Needs the lock."""
        _, ticket = self._tickets.pop(digest, (0.0, None))
        if ticket:
            user = ticket.grant.user
            self._per_user[user] -= 1
            if not self._per_user[user]:
                del self._per_user[user]
        return ticket


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
