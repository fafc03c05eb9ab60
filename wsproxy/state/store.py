"""The interface of every store of the shared state, and what holds for each of its operations.

A member is one process. It publishes what it holds, which is nothing at its start, and then beats at least
every 500 ms. Everything that it holds is void when its lease has passed or it has left.

For every operation holds:

- It is one decision: it happens at one moment, with all of its effects or none.
- Its arguments and results are values with a JSON form.
- It blocks for the store's own timeout at most, 1 s. Without an answer it raises :class:`.StoreUnavailable`,
  and may have happened all the same. It may be repeated: a second time it changes nothing more.
- Any thread may call it.
- Strangers cause none without a valid token, but for what beats bring in batches. Tokens with unknown keys
  cause one :meth:`Store.borrow` in some seconds.
"""

from __future__ import annotations

from typing import Protocol

from .membership import Beat, Copy, Issued, Member, Publication, Pulse, Revoked, RulesPage, SessionsPage
from .revocations import Rule
from .tickets import Ticket
from .values import Confirmed, Decision, Event, Evicted, Message, Request

__all__ = ["MOST_TEXT", "PAGE", "SCHEMA", "Store"]

SCHEMA = 1
"""The newest version of the values, and of what a Redis has of them, that this program knows.

In use is the newest one that the store and all its living members know. A field with a default needs no new
schema: who does not know it leaves it alone. What an older member would take for something else does.
"""

PAGE = 1000
"""How many items a page has at most: rules, sessions, failures of one pulse."""

MOST_TEXT = 4 * 1024 * 1024
"""Characters of one copy; a longer one is not kept."""


class Store(Protocol):
    """What must be true for all processes together."""

    # Members

    def publish(self, publication: Publication) -> Pulse:
        """Tell what a member holds: at its start, and whenever a pulse says that it is not known.

        Its sessions count again, even above a limit. From the first part to the last the store admits none of
        its sessions. The member holds back what it has to report until after the last part.
        """
        ...

    def beat(self, member: str, beat: Beat) -> Pulse:
        """Renew a member's lease, if the store knows the member."""
        ...

    def leave(self, member: str) -> None:
        """Forget a member and all that it holds, at once."""
        ...

    def members(self) -> tuple[Member, ...]:
        """Return the members, those included that are publishing."""
        ...

    # Openings

    def admit(self, member: str, request: Request, events: tuple[Event, ...] = ()) -> Decision:
        """Decide on a session before its dial: its slots, and its claim on the console.

        - ADMITTED: it has its slots, and reaches for the console.
        - WAIT: it has its slots unless ``limit`` says otherwise. A message FREE tells when to ask again.
        - FULL, BUSY, UNSETTLED: it has nothing.

        Asking again for a session that is admitted says so again.

        :param events: what the member has to report, which happens before.
        """
        ...

    def opened(self, member: str, session: str) -> Confirmed:
        """Take the console for an admitted session, after its dial and before its client is let in.

        Who had it is told LOST, and is held off. If :attr:`.Decision.decided` says so, an event OPENED does
        the same.
        """
        ...

    def evict(self, member: str, session: str) -> Evicted:
        """KubeVirt says that the console is in use: tell the session that has it LOST, once.

        It does so only if the admitted session is to take the console over.
        """
        ...

    def report(self, member: str, events: tuple[Event, ...]) -> tuple[Message, ...]:
        """Tell what became of sessions, in this order.

        :returns: the messages for the member, as in every answer.
        """
        ...

    # Tickets

    def issue(self, digest: str, ticket: Ticket) -> Issued:
        """Make a ticket valid.

        :param digest: SHA-256 of its text, in hexadecimal digits.
        """
        ...

    def redeem(self, digest: str) -> Ticket | None:
        """Use a ticket up, and return what it stood for; None if it is unknown, used, or too old."""
        ...

    # Revocations

    def revoke(self, rules: tuple[Rule, ...]) -> Revoked:
        """Add rules: all, or none if there would be too many.

        :param rules: at most :data:`.PARTS`, so that a store has time for others.
        """
        ...

    def lift(self, kick: str, lifted_at: float) -> Revoked:
        """Lift all rules of a kick.

        :param lifted_at: UNIX time.
        """
        ...

    def rules(self, since: int) -> RulesPage:
        """Return the rules that have changed since a version; 0 for all."""
        ...

    def behind(self, version: int) -> tuple[Member, ...]:
        """Return the members that have not acknowledged a version of the rules in this epoch."""
        ...

    # Copies of what processes fetch for each other

    def borrow(self, member: str, name: str, max_age: float, turn_seconds: float) -> Copy:
        """Return a copy that is young enough. If there is none, one member gets the turn to fetch it.

        The turn ends with :meth:`keep`, with the member, or after its seconds, 60 at most. A member that asks
        again has it anew. A member need not have published. If there are too many turns, or the name is too
        long, each member that asks is to fetch for itself.

        :param name: of what is fetched; at most 200 characters.
        :param max_age: seconds.
        """
        ...

    def keep(self, member: str, name: str, text: str | None, seconds: float, age: float) -> None:
        """End a member's turn, and keep what it has fetched. Without the turn nothing happens.

        A text that is too long is not kept. If there is no room, the copies that were kept first are dropped.

        :param text: ASCII; None if fetching has failed.
        :param seconds: for which it is kept; a day at most.
        :param age: seconds since it was made.
        """
        ...

    # For the operator

    def sessions(self, member: str, after: str = "") -> SessionsPage:
        """Return the sessions of a member. One that is there all the while is returned at least once."""
        ...

    def tell(self, member: str, session: str, code: int, reason: str) -> bool:
        """Have a member end one of its sessions; False if there is no such session.

        :param code: close code.
        :param reason: close reason.
        """
        ...

    # The member's own side

    def listen(self, member: str, seconds: float) -> bool:
        """Wait until there may be news for a member, or the time is over. Blocks that long.

        News makes the member beat at once. Some may be lost: the next beat brings all the same.

        :returns: whether there may be news.
        """
        ...

    def close(self) -> None:
        """Close what the store has open in this process. Idempotent."""
        ...
