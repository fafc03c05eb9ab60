"""What the rules remember of members, sessions and consoles. No I/O, no locks: see :class:`.SharedState`."""

from __future__ import annotations

from collections.abc import Iterator

from ..console_policies import Policy
from ..membership import Member
from ..values import (
    NO_LIMITS,
    Console,
    Held,
    Message,
    MessageKind,
    SessionRef,
    SharedSession,
    Stage,
    User,
)

__all__ = ["ConsoleRecord", "Count", "Counts", "Entry", "Identity", "MemberRecord"]

Identity = tuple[str, User, str]
"""What a client that reconnects by itself has in common with what it was: token id, user and network."""

_SAME_BOX = {MessageKind.KEEP: MessageKind.EXPECT}  # the later of both counts


class Count:
    """How many sessions one limit concerns, such as those of one user.

    :ivar counted: those that count.
    :ivar ending: those of them that are ending.
    :ivar given: those that have given their slot to another, and are still there.
    :ivar failed: those whose opening was given up, that have left their slot to anybody, and are still there.
    """

    __slots__ = ("counted", "ending", "failed", "given")

    def __init__(self) -> None:
        self.counted = self.ending = self.given = self.failed = 0

    @property
    def is_empty(self) -> bool:
        """Whether it concerns no session."""
        return not (self.counted or self.given or self.failed)


Counts = tuple[Count, Count, Count]
"""Of all sessions, of those of one user, and of those with one console."""


class Entry:
    """One session.

    :ivar counts: what it counts in: all, its user's, its console's.
    :ivar given: those of them in which another has its slot.
    :ivar failed: those of them in which it has left its slot to anybody.
    :ivar policy: by which it has the console, or reaches for it.
    :ivar limits: by which it was admitted.
    :ivar expected: the user who may take its console over, as its member was told.
    """

    __slots__ = (
        "counts",
        "ending",
        "expected",
        "failed",
        "given",
        "limits",
        "member",
        "place",
        "policy",
        "session",
        "stage",
    )

    def __init__(
        self, member: MemberRecord, session: SharedSession, place: ConsoleRecord, counts: Counts
    ) -> None:
        self.member = member
        self.session = session
        self.place = place
        self.counts = counts
        self.given: tuple[Count, ...] = ()
        self.failed: tuple[Count, ...] = ()
        self.stage = Stage.WAITING
        self.policy = Policy.PASSTHROUGH
        self.limits = NO_LIMITS
        self.ending = False
        self.expected: User | None = None

    @property
    def ref(self) -> SessionRef:
        return SessionRef(self.member.id, self.session.id)

    @property
    def identity(self) -> Identity:
        return self.session.token_id, self.session.user, self.session.network

    @property
    def held(self) -> Held:
        return Held(self.session, self.stage, self.policy, self.ending)

    def tell(self, kind: MessageKind, by: User | None = None, code: int = 0, reason: str = "") -> None:
        """Post a message to its member."""
        self.member.post(kind, self.session.id, by, code, reason)


class ConsoleRecord:
    """One console, and who is there.

    :ivar entries: all sessions with it, the first first.
    :ivar waiters: who is told when something changes: member, and session id.
    :ivar holder: who has it, where a rule applies.
    :ivar challenger: who reaches for it.
    :ivar target: whom the challenger takes it from, also after that one has been released.
    :ivar evicted: the same, once the challenger has ended it.
    :ivar losers: until when those who lost it to the holder are held off.
    :ivar marks: of openings that were given up, with their users; the oldest first.
    """

    __slots__ = (
        "challenger",
        "console",
        "count",
        "entries",
        "evicted",
        "holder",
        "losers",
        "marks",
        "target",
        "waiters",
    )

    def __init__(self, console: Console) -> None:
        self.console = console
        self.count = Count()
        self.entries: dict[Entry, None] = {}
        self.waiters: dict[tuple[MemberRecord, str], None] = {}
        self.holder: Entry | None = None
        self.challenger: Entry | None = None
        self.target: Entry | None = None
        self.evicted: Entry | None = None
        self.losers: dict[Identity, float] = {}
        self.marks: dict[SessionRef, User | None] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nobody is there; then nobody waits either."""
        return not (self.entries or self.marks)


class MemberRecord:
    """One member, and all that it holds.

    :param numbers: for its messages; never the same twice in an epoch, so a member that comes again cannot
        acknowledge messages that it has not seen.
    :ivar expires: when its lease has passed, by the store's clock.
    :ivar is_known: whether all that it holds is here.
    :ivar unconfirmed: while it publishes: the entries that it has not named again.
    :ivar marks: the consoles that its marks are on, by session id.
    :ivar applied: version of the revocation rules that it has applied.
    :ivar batch: number of its last beat.
    :ivar has_news: whether it has been posted something since it last looked.
    """

    def __init__(self, member: Member, expires: float, numbers: Iterator[int]) -> None:
        self.member = member
        self.id = member.id
        self.expires = expires
        self.is_known = False
        self.unconfirmed: set[str] = set()
        self.entries: dict[str, Entry] = {}
        self.marks: dict[str, Console] = {}
        self.applied = self.batch = 0
        self.has_news = False
        self._numbers = numbers
        self._mail: dict[tuple[str, MessageKind], Message] = {}

    def post(self, kind: MessageKind, session: str, by: User | None, code: int = 0, reason: str = "") -> None:
        """Keep a message until the member has acknowledged it; a later one of the same kind replaces it."""
        box = session, _SAME_BOX.get(kind, kind)
        self._mail.pop(box, None)  # so that the messages stand in the order of their numbers
        self._mail[box] = Message(next(self._numbers), kind, session, code, reason, by)
        self.has_news = True

    @property
    def messages(self) -> tuple[Message, ...]:
        """Those that have not been acknowledged, by number."""
        return tuple(self._mail.values()) if self._mail else ()

    def acknowledge(self, number: int) -> None:
        """Forget the messages up to a number."""
        while self._mail:
            box, message = next(iter(self._mail.items()))
            if message.number > number:
                break
            del self._mail[box]

    def discard(self, session: str) -> None:
        """Forget what there is for a session that has been released."""
        if self._mail:
            for kind in MessageKind:
                self._mail.pop((session, kind), None)
