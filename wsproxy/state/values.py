"""What a process and the store of the shared state tell each other of sessions, as values with a JSON form.

No value has a time of the store's clock in it, only durations, so the two need not have the same clock. UNIX
times are by the clock of the member that says them. :mod:`.codec` turns the values into JSON and back.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from .console_policies import Policy

__all__ = [
    "NO_LIMITS",
    "BusyReason",
    "Confirmed",
    "Console",
    "Decision",
    "Event",
    "EventKind",
    "Evicted",
    "Held",
    "Message",
    "MessageKind",
    "Outcome",
    "Request",
    "SessionRef",
    "SharedSession",
    "SlotLimits",
    "Stage",
    "User",
]

User = str | int
"""Who a user is, as the token says it: 5 and "5" are two users."""


class Console(NamedTuple):
    """One subresource of one virtual machine instance."""

    namespace: str
    vmi: str
    subresource: str


class SharedSession(NamedTuple):
    """Who wants or has what.

    :ivar id: names the session in its member's log; unique within the member.
    :ivar client: the client's address, for lists.
    :ivar network: of the client, by which it is held off; an IPv6 client's /64.
    :ivar token_id: see :class:`.Grant`.
    :ivar may_take_over: whether the token allows it.
    :ivar since: UNIX time at which it began, for lists.
    :ivar expires_at: UNIX time at which the grant expires, for lists; ``math.inf`` for never.
    """

    id: str
    user: User
    console: Console
    client: str = ""
    network: str = ""
    token_id: str = ""
    may_take_over: bool = True
    since: float = 0.0
    expires_at: float = 0.0


class SessionRef(NamedTuple):
    """Names one session among those of all members."""

    member: str
    session: str


class Stage(Enum):
    """How far a session has come."""

    WAITING = "waiting"
    DIALLING = "dialling"
    OPEN = "open"


class Held(NamedTuple):
    """A session as the store knows it, or is told of it again.

    :ivar policy: the rule by which it has the console, or reaches for it. ``PASSTHROUGH`` if it does neither,
        as an opening that was given up.
    :ivar ending: whether it has begun to end.
    """

    session: SharedSession
    stage: Stage
    policy: Policy
    ending: bool = False


class SlotLimits(NamedTuple):
    """How many sessions there may be, as one process's settings say; 0 for any number.

    :ivar sessions: in all.
    :ivar user: of one user.
    :ivar vmi: with one console.
    """

    sessions: int = 0
    user: int = 0
    vmi: int = 0


NO_LIMITS = SlotLimits()


class Request(NamedTuple):
    """A session that wants to be admitted.

    :ivar policy: the rule for its console.
    :ivar limits: those of the member that asks.
    :ivar may_wait: False if this is the last time that it asks: it is decided now.
    """

    session: SharedSession
    policy: Policy = Policy.PASSTHROUGH
    limits: SlotLimits = NO_LIMITS
    may_wait: bool = True


class Outcome(Enum):
    """What the store decided."""

    ADMITTED = "admitted"
    FULL = "full"
    BUSY = "busy"
    WAIT = "wait"
    UNSETTLED = "unsettled"


class BusyReason(Enum):
    """Why somebody cannot have a console."""

    IN_USE = "in-use"
    BEING_TAKEN = "being-taken"
    HELD_OFF = "held-off"


class MessageKind(Enum):
    """What a member is to do with one of its sessions."""

    END = "end"
    """End it with the code and the reason."""
    LOST = "lost"
    """End it: another session took its console over."""
    EXPECT = "expect"
    """If it loses its upstream from now on, another session took its console over."""
    KEEP = "keep"
    """Take the last EXPECT back."""
    LOOK = "look"
    """Look whether its client has left, and report that it is ending if so."""
    FREE = "free"
    """It waits: what it waits for may be free."""


class Message(NamedTuple):
    """What the store has for a session.

    It is repeated in every answer to its member until a beat acknowledges its number.

    :ivar number: grows within the member and the epoch. If a member has applied a later one of the same
        session and kind, or of EXPECT and KEEP together, it ignores this one.
    :ivar session: id of the member's session.
    :ivar code: close code, for END.
    :ivar reason: close reason, for END.
    :ivar by: the other user, for LOST and EXPECT. Whether clients learn it is the member's to decide.
    """

    number: int
    kind: MessageKind
    session: str
    code: int = 0
    reason: str = ""
    by: User | None = None


class Decision(NamedTuple):
    """What came of a request to be admitted.

    :ivar limit: the limit that is reached, for FULL, and for WAIT if that is the obstacle.
    :ivar busy: why the console is not to be had, for BUSY, and for WAIT if that is the obstacle.
    :ivar by: the user who is in the way; None if nobody, or several.
    :ivar ending: for WAIT, whether somebody is ending. If not, clients that are in the way may have left
        unnoticed, and waiting makes sense for a moment only.
    :ivar in_way: for WAIT, the sessions to look at. Other members have been told to; the asking member looks
        at its own.
    :ivar decided: for ADMITTED, whether the session gets its console whatever happens until it is open, and
        nobody has to learn that at once. Then the member may report OPENED in place of asking.
    """

    outcome: Outcome
    limit: str = ""
    busy: BusyReason | None = None
    by: User | None = None
    ending: bool = False
    in_way: tuple[SessionRef, ...] = ()
    messages: tuple[Message, ...] = ()
    decided: bool = False


class Confirmed(NamedTuple):
    """What came of telling that a session's upstream is open.

    :ivar admitted: False if the store does not know the session, or another one has the console. Then the
        client must not be let in.
    :ivar version: of the revocation rules, now. A member that has not applied it looks once more.
    :ivar known: whether the store has all that the member holds; False after it has begun anew.
    """

    admitted: bool
    version: int
    messages: tuple[Message, ...] = ()
    known: bool = True


class Evicted(NamedTuple):
    """What came of telling that KubeVirt says that the console is in use.

    :ivar again: whether asking KubeVirt again makes sense, because it is, or was, a session of ours.
    """

    again: bool
    messages: tuple[Message, ...] = ()


class EventKind(Enum):
    """What became of a session."""

    OPENED = "opened"
    """It is open, and its client is let in: see :attr:`Decision.decided`."""
    ENDING = "ending"
    """It has begun to end; it has the console until it is released."""
    GIVEN_UP = "given-up"
    """Its opening was given up: it is ending, and the console is free."""
    RELEASED = "released"
    """Both legs are closed: it holds nothing any more."""
    MARK = "mark"
    """KubeVirt may still open the console for an opening that was given up."""
    UNMARK = "unmark"
    """KubeVirt will not do so any more."""


class Event(NamedTuple):
    """What a member reports. Every event may be reported twice, and of sessions that the store does not know.

    :ivar session: id of the session. A mark has the id of its opening's session.
    :ivar console: of a MARK.
    :ivar by: the user of a MARK.
    """

    kind: EventKind
    session: str
    console: Console | None = None
    by: User | None = None
