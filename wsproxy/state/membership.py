"""What a process and the store of the shared state tell each other of members, tickets, rules and copies.

What :mod:`.values` says holds here, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .revocations import Rule
from .values import Held, Message

__all__ = [
    "PARTS",
    "Beat",
    "Copy",
    "Failure",
    "Issued",
    "Member",
    "Publication",
    "Pulse",
    "Revoked",
    "RulesPage",
    "SessionsPage",
    "publications",
]

PARTS = 500
"""How many sessions, and how many rules, one part of a publication has at most; and how many a revocation."""


class Member(NamedTuple):
    """A process that shares the state.

    :ivar id: random, made after the last fork, so no two processes ever have the same.
    :ivar name: for people, such as the replica's.
    :ivar lease: seconds after which the store forgets the member unless it beats.
    :ivar schema: the newest schema that it knows; see :data:`.SCHEMA`.
    """

    id: str
    name: str
    lease: float
    schema: int = 1


class Failure(NamedTuple):
    """What failed attempts to authenticate cost a network.

    :ivar bucket: the network, and whether foreign pages did it.
    :ivar seconds: in a beat, by how much later the bucket is full again; in a pulse, when it is, from now.
    """

    bucket: str
    seconds: float


class Beat(NamedTuple):
    """What a member says to renew its lease.

    If the epoch is another one by now, the store ignores all of it but the failures. If the store does not
    know the member, it ignores those, too.

    :ivar number: grows with each beat. The failures of a number count once.
    :ivar epoch: the epoch that the rest refers to; "" for none.
    :ivar applied: the version of the revocation rules that the member has applied.
    :ivar seen: the highest number of a message that it has applied.
    :ivar roster: the version of the list of members that it knows.
    :ivar failures: those that are new, of networks past half of the member's share of the limit.
    :ivar failures_since: version of the failures that it knows.
    """

    number: int
    epoch: str = ""
    applied: int = 0
    seen: int = 0
    roster: int = 0
    failures: tuple[Failure, ...] = ()
    failures_since: int = 0


class Pulse(NamedTuple):
    """What the store says to a member.

    :ivar epoch: changes when the store has lost data, or may have.
    :ivar version: of the revocation rules.
    :ivar known: whether the store has all that the member holds; if not, the member publishes it.
    :ivar settled: whether the store admits anybody.
    :ivar held: how many sessions of the member the store knows. If that differs from the member's own number
        while nothing is under way, the member publishes again.
    :ivar roster: version of the list of members.
    :ivar members: ids of all members; None if the member knows that version.
    :ivar failures: the buckets that have changed since, in the order in which they did; perhaps not all.
    :ivar failures_version: what to ask from the next time.
    :ivar schema: the schema in use, see :data:`.SCHEMA`.
    """

    epoch: str
    version: int
    known: bool
    settled: bool
    held: int = 0
    roster: int = 0
    members: tuple[str, ...] | None = None
    messages: tuple[Message, ...] = ()
    failures: tuple[Failure, ...] = ()
    failures_version: int = 0
    schema: int = 1


class Publication(NamedTuple):
    """All that a member holds, or one part of it. The first part makes the store forget what it had of it.

    :ivar part: 0, 1 and so on.
    :ivar last: whether this is the last part; the store knows the member from then on.
    :ivar sessions: at most :data:`PARTS`; the oldest first.
    :ivar rules: the revocation rules that the member knows, at most :data:`PARTS`.
    :ivar knew: ids of the members that this one knew, in the first part.
    """

    member: Member
    part: int = 0
    last: bool = True
    sessions: tuple[Held, ...] = ()
    rules: tuple[Rule, ...] = ()
    knew: tuple[str, ...] = ()


def publications(
    member: Member, sessions: Sequence[Held], rules: Sequence[Rule], knew: tuple[str, ...]
) -> Iterator[Publication]:
    """Yield the parts, of which there is at least one. Parameters are as for :class:`Publication`."""
    last = max(len(sessions), len(rules), 1) - 1
    for start in range(0, last + 1, PARTS):
        end = start + PARTS
        held, known = tuple(sessions[start:end]), tuple(rules[start:end])
        yield Publication(member, start // PARTS, end > last, held, known, () if start else knew)


class Issued(NamedTuple):
    """What came of issuing a ticket.

    :ivar limit: the limit that is reached, "user" or "all"; "" if the ticket is valid.
    :ivar seconds: for how long it is.
    """

    limit: str = ""
    seconds: float = 0.0


class Copy(NamedTuple):
    """What the store has of something that processes fetch for each other.

    Without a text, either it is the member's turn to fetch it, or another member is fetching it.

    :ivar text: what was kept; None if there is nothing, or nothing young enough.
    :ivar age: seconds since it was made.
    :ivar is_turn: whether the member is to fetch it.
    """

    text: str | None = None
    age: float = 0.0
    is_turn: bool = False


class Revoked(NamedTuple):
    """What came of adding revocation rules, or of lifting some.

    :ivar done: False if there would be too many rules, or none to lift; nothing has changed then.
    :ivar version: of the rules; from when a member has applied it, it knows of this.
    """

    done: bool
    version: int


class RulesPage(NamedTuple):
    """Revocation rules that have changed, the first changed first.

    :ivar epoch: the one that the version belongs to.
    :ivar version: what to ask from the next time.
    :ivar more: whether there are more already.
    """

    epoch: str
    version: int
    rules: tuple[Rule, ...]
    more: bool = False


class SessionsPage(NamedTuple):
    """Some of a member's sessions.

    :ivar after: what to ask for the next page with; "" after the last one.
    """

    sessions: tuple[Held, ...]
    after: str = ""
