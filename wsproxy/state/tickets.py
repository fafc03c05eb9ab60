"""One-time tickets: random path elements that stand for a verified token once, and for half a minute.

So the token itself need never be in a URL, where logs, histories and Referer headers keep it. No I/O.
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
_BYTES = 16  # 128 bits: nobody guesses one of 10,000 in half a minute
_MAX_PER_USER = 16
_MAX = 10_000
# An unknown one as a failed attempt: nobody finds one by guessing, but any page can make some up.
_ATTEMPTS = 0.1


@dataclass(frozen=True)
class Ticket:
    """What a ticket stands for.

    :ivar grant: of the token that it was issued for, narrowed to one VMI.
    :ivar subresource: the one that may be opened.
    :ivar origin: the page that may redeem it, None for a client that sends no Origin.
    """

    grant: Grant
    subresource: str
    origin: Origin | None


class Tickets:
    """The tickets of one process that are neither used nor expired. Safe from every thread.

    It holds their SHA-256 only, and finds one by it: what a search by hash takes tells nobody anything.

    :param clock: seconds that never go backwards.
    :param wall_clock: UNIX time, seconds.
    """

    def __init__(self, clock: Clock = time.monotonic, wall_clock: Clock = unix_time) -> None:
        self._lock = threading.Lock()  # guards the attributes below
        self._clock = clock
        self._wall_clock = wall_clock
        # The oldest first, with its time of issue. A plain dict would be slow to say which that is.
        self._tickets: OrderedDict[bytes, tuple[float, Ticket]] = OrderedDict()
        self._per_user: Counter[str | int] = Counter()

    def __len__(self) -> int:
        return len(self._tickets)

    def issue(self, ticket: Ticket) -> tuple[str, float]:
        """Make a ticket valid, and return its text and for how many seconds: 30, or as long as its token.

        :raises LimitExceeded: if its user has 16 already.
        :raises Busy: if there are 10,000 in all.
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
        """Use a ticket up, and return what it grants. Of several threads with one ticket, one gets it.

        Afterwards the ticket is gone, whatever is raised here or follows.

        :param subresource: what is to be opened.
        :param origin: the Origin header, None without one.
        :raises BadToken: if there is no such ticket, or not any more.
        :raises Forbidden: if it was issued for another subresource, or to another page.
        """
        with self._lock:
            self._drop_expired()
            ticket = self._take(_digest(text))
        if ticket is None:
            raise BadToken("the ticket is unknown, used or expired", attempts=_ATTEMPTS)
        page = None if origin is None else Origin.parse(origin)
        no_page = page is None and origin is not None  # such as null, which is not the same as no Origin
        if no_page or page != ticket.origin or subresource != ticket.subresource:
            raise Forbidden("the ticket was issued for another page or subresource")
        return ticket.grant

    def discard(self, text: str) -> None:
        """Use a ticket up for nothing, if there is such a one."""
        with self._lock:
            self._take(_digest(text))

    def _drop_expired(self) -> float:
        """Drop all that is too old, and return the time. Needs the lock.

        They stand in front: all are valid for equally long.
        """
        now = self._clock()
        while self._tickets:
            digest, (issued, _) = next(iter(self._tickets.items()))
            if now - issued < _SECONDS:
                break
            self._take(digest)
        return now

    def _take(self, digest: bytes) -> Ticket | None:
        """Needs the lock."""
        _, ticket = self._tickets.pop(digest, (0.0, None))
        if ticket:
            user = ticket.grant.user
            self._per_user[user] -= 1
            if not self._per_user[user]:
                del self._per_user[user]
        return ticket


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
