"""The tickets of all processes that are neither used nor too old. No I/O."""

from __future__ import annotations

from collections import Counter, OrderedDict

from ..membership import Issued
from ..tickets import Ticket
from ..values import User

__all__ = ["TicketBook"]

_SECONDS = 30.0
_MOST_PER_USER = 16
_MOST = 10_000


class TicketBook:
    """Tickets by the SHA-256 of their text."""

    def __init__(self) -> None:
        # The oldest first, with the time of issue.
        self._tickets: OrderedDict[str, tuple[float, Ticket]] = OrderedDict()
        self._per_user: Counter[User] = Counter()

    def __len__(self) -> int:
        return len(self._tickets)

    def issue(self, digest: str, ticket: Ticket, now: float) -> Issued:
        """Make a ticket valid, unless there are too many. A second time it is the same ticket."""
        self._drop_old(now)
        if digest not in self._tickets:
            if self._per_user[ticket.grant.user] >= _MOST_PER_USER:
                return Issued("user")
            if len(self._tickets) >= _MOST:
                return Issued("all")
            self._tickets[digest] = now, ticket
            self._per_user[ticket.grant.user] += 1
        return Issued("", self._tickets[digest][0] + _SECONDS - now)

    def redeem(self, digest: str, now: float) -> Ticket | None:
        """Use a ticket up; None if there is none."""
        self._drop_old(now)
        return self._take(digest)

    def _drop_old(self, now: float) -> None:
        """Drop the tickets that are too old, which stand in front: all are valid for equally long."""
        while self._tickets:
            digest, (issued, _) = next(iter(self._tickets.items()))
            if now - issued < _SECONDS:
                break
            self._take(digest)

    def _take(self, digest: str) -> Ticket | None:
        _, ticket = self._tickets.pop(digest, (0.0, None))
        if ticket:
            user = ticket.grant.user
            self._per_user[user] -= 1
            if not self._per_user[user]:
                del self._per_user[user]
        return ticket
