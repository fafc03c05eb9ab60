"""One-time tickets: random path segments, each of which stands for a verified token once, for 30 seconds.

With a ticket, the token itself is in no URL, so no log, browser history or Referer header keeps it. No I/O.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Protocol

from ..exceptions import BadToken, Busy, Forbidden, LimitExceeded
from ..protocol.origin import Origin
from ..runtime.deadline import Clock
from ..runtime.wall_clock import unix_time
from ..tokens.claims import Grant
from .membership import Issued

__all__ = ["Ticket", "Tickets"]

_BYTES = 16  # 128 bits: too many to guess one of 10,000 tickets in 30 seconds
_RETRY_AFTER = 30  # seconds
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


class TicketKeeper(Protocol):
    """Where tickets are kept, by the digest of their text; see :class:`.Store`."""

    def issue(self, digest: str, ticket: Ticket) -> Issued: ...

    def redeem(self, digest: str) -> Ticket | None: ...


class Tickets:
    """Makes and redeems tickets. Safe from every thread; blocks as the keeper does.

    The keeper has only their SHA-256. The time of a look-up by hash reveals nothing.

    :param keeper: has the unused tickets of all processes that share it.
    :param wall_clock: UNIX time, seconds.
    """

    def __init__(self, keeper: TicketKeeper, wall_clock: Clock = unix_time) -> None:
        self._keeper = keeper
        self._wall_clock = wall_clock

    def issue(self, ticket: Ticket) -> tuple[str, float]:
        """Make a ticket valid.

        :returns: its text, and the seconds for which it is valid: 30, or less if its token expires before.
        :raises LimitExceeded: if its user has 16 unused tickets already.
        :raises Busy: if there are 10,000 unused tickets in all.
        :raises StateUnavailable: if the store is away.
        """
        text = secrets.token_urlsafe(_BYTES)
        issued = self._keeper.issue(_digest(text), ticket)
        if issued.limit == "user":
            raise LimitExceeded("tickets", "you have too many unused tickets", retry_after=_RETRY_AFTER)
        if issued.limit:
            raise Busy("there are too many unused tickets", retry_after=_RETRY_AFTER)
        return text, min(issued.seconds, ticket.grant.seconds_left(self._wall_clock()))

    def redeem(self, text: str, subresource: str, origin: str | None) -> Grant:
        """Use a ticket up, and return what it grants. If several threads redeem one ticket, only one gets it.

        The ticket is used up even if this raises.

        :param subresource: the one that the client wants to open.
        :param origin: the Origin header; None without one.
        :raises BadToken: if the ticket is unknown, used or expired.
        :raises Forbidden: if it was issued for another subresource, or to another page.
        :raises StateUnavailable: if the store is away.
        """
        ticket = self._keeper.redeem(_digest(text))
        if ticket is None:
            raise BadToken("the ticket is unknown, used or expired", attempts=_ATTEMPTS)
        page = None if origin is None else Origin.parse(origin)
        no_page = page is None and origin is not None  # such as "null", which differs from no Origin
        if no_page or page != ticket.origin or subresource != ticket.subresource:
            raise Forbidden("the ticket was issued for another page or subresource")
        return ticket.grant

    def discard(self, text: str) -> None:
        """Use a ticket up without a grant, if it exists.

        :raises StateUnavailable: if the store is away.
        """
        self._keeper.redeem(_digest(text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
