"""Decides which client keeps a console that several clients want at the same time. No I/O.

KubeVirt serves one client per console. If another client connects, KubeVirt drops the first without a reason.
Two viewers that reconnect automatically then drop each other without end.

The settings choose a policy for each console. With passthrough KubeVirt decides alone. With refuse the holder
keeps the console. With takeover the newcomer gets it, and the proxy tells the previous holder why. The proxy
then refuses that client for as long as it only reconnects.

If the holder is leaving, a claim waits for it, because a page that is reloaded must find its console free.
If an opening is abandoned, KubeVirt may still open the console for it, and drop the holder. So the opening
leaves a mark, which says what the proxy tells that holder.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from ..exceptions import ConsoleBusy, TransportClosed
from ..runtime.deadline import Clock, Deadline
from ..tokens.claims import Grant
from .console_policies import ConsolePolicies, Policy
from .values import Console

__all__ = [
    "HOLD_OFF",
    "TAKEN_OVER",
    "Arbitration",
    "Claim",
    "Mark",
    "Requester",
]

logger = logging.getLogger("wsproxy.arbitration")

TAKEN_OVER = 4410
"""Close code for a client whose console another one took over."""

HOLD_OFF = 30.0
"""Seconds that a client must wait without an attempt before it may take back a console that it lost."""

_MOMENTS = 5.0  # seconds that KubeVirt may need to notice the end of one of our sessions
_MOST_MARKS = 16  # of one console


@dataclass(frozen=True)
class Requester:
    """A client that wants a console.

    :ivar grant: allows the console.
    :ivar address: the client's address; "" if it is not known.
    """

    grant: Grant
    address: str

    @property
    def identity(self) -> tuple[str, str | int, str]:
        """What stays the same when a client reconnects automatically."""
        return self.grant.token_id, self.grant.user, self.address


class ConsoleHolder(Protocol):
    """A session that has a console, or is about to get it."""

    @property
    def id(self) -> str: ...

    @property
    def is_ending(self) -> bool:
        """Whether the session is about to release the console, perhaps as its client left. Never blocks."""
        ...

    def expect_takeover(self, reason: str | None) -> None:
        """Treat a loss of the upstream from now on as a takeover of the console.

        Any thread, never blocks, and calls nothing back.

        :param reason: the close reason for the client; None takes this back.
        """
        ...

    def end(self, code: int, reason: str) -> None:
        """End the session with a Close from the proxy. Any thread, never blocks."""
        ...


class Claim:
    """A session's claim to a console, from its request for the console to the release."""

    def __init__(
        self,
        arbitration: Arbitration | None,
        policy: Policy,
        console: Console,
        who: Requester,
        session: ConsoleHolder,
    ) -> None:
        self.policy = policy
        self.console = console
        self.who = who
        self.session = session
        self._arbitration = arbitration  # None with passthrough
        # Guarded by the arbitration.
        self.previous: Claim | None = None  # the holder that it takes over, until that session is ended
        self.evicted: Claim | None = None  # the same holder, once evict() has ended its session
        self.expected: str | None = None  # the reason that its session was last told to expect

    @property
    def preserves_session(self) -> bool:
        """Whether KubeVirt must leave the console to a client that has it, even one that is not ours."""
        return self.policy is Policy.REFUSE

    @property
    def asks_first(self) -> bool:
        """Whether the first dial must not drop another client, so that KubeVirt reports a console in use."""
        return self.policy is not Policy.PASSTHROUGH

    def evict(self) -> bool:
        """End the session that this claim takes over, because KubeVirt reports that the console is in use.

        Once only, never blocks.

        :returns: False if this claim takes over no session of ours.
        """
        return self._arbitration is not None and self._arbitration._evict(self)

    @property
    def may_be_free_soon(self) -> bool:
        """Whether the client that KubeVirt reports may be a session or opening of ours that is over."""
        return self._arbitration is not None and self._arbitration._may_be_free_soon(self)

    def won(self) -> None:
        """Make this session the holder: its console is open. End the previous holder. Once, never blocks."""
        if self._arbitration:
            self._arbitration._won(self)

    def mark(self) -> Mark | None:
        """Leave a mark, because KubeVirt may still open the console for this claim. Never blocks.

        The mark stays when the claim is released.

        :returns: None with passthrough.
        """
        return self._arbitration._mark(self) if self._arbitration else None

    def release(self) -> None:
        """Give the claim up: the session ends, or could not get the console. Idempotent, never blocks."""
        if self._arbitration:
            self._arbitration._given_up(self)


class Mark:
    """Stands for an abandoned opening, to which the console's holder may still lose the console.

    A mark keeps no client from the console.
    """

    def __init__(self, arbitration: Arbitration, console: Console, reason: str) -> None:
        self._arbitration = arbitration
        self.console = console
        self.reason = reason

    def remove(self) -> None:
        """Forget the opening, as KubeVirt will not open its console. Any thread, idempotent, never blocks."""
        self._arbitration._unmark(self)


@dataclass
class _Contest:
    """One console that a session has or claims, or that an abandoned opening may still get.

    :ivar losers: by identity of a client that lost the console, the time until which the proxy refuses it.
    :ivar marks: of abandoned openings, the oldest first.
    """

    holder: Claim | None = None
    challenger: Claim | None = None
    losers: dict[tuple[str, str | int, str], float] = field(default_factory=dict)
    marks: dict[Mark, None] = field(default_factory=dict)


class Arbitration:
    """Knows which session has which console, in one process. Safe from every thread.

    :param show_user: whether a client may learn the user that has or took its console.
    :param clock: seconds that never go backwards.
    """

    def __init__(
        self,
        policies: ConsolePolicies,
        show_user: bool,
        clock: Clock = time.monotonic,
    ) -> None:
        self._policies = policies
        self._show_user = show_user
        self._clock = clock
        # Guards the attributes below, and what is in them. No thread holds it while it ends a session.
        self._changed = threading.Condition()
        self._contests: dict[Console, _Contest] = {}
        # When the last session with the console ended, the oldest first.
        self._ended: OrderedDict[Console, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._contests)

    def claim(self, console: Console, who: Requester, session: ConsoleHolder, deadline: Deadline) -> Claim:
        """Claim a console. When this returns, the session may dial it.

        Blocks while a session that has or claims the console is ending, until the deadline at most.

        :raises ConsoleBusy: if the session may not have the console.
        :raises TransportClosed: if the session itself begins to end while it waits.
        """
        policy = self._policies.of(console.namespace, console.vmi, console.subresource)
        if policy is Policy.PASSTHROUGH:
            return Claim(None, policy, console, who, session)
        claim = Claim(self, policy, console, who, session)
        with self._changed:
            self._wait_while_ending(claim, deadline)
            contest = self._contests.setdefault(console, _Contest())
            if contest.holder or contest.challenger:
                self._check(contest, claim)
            contest.challenger = claim
            claim.previous = contest.holder
            self._expect(contest)
        return claim

    def look_again(self) -> None:
        """Have waiting claims check whether their own sessions are ending. Any thread, never blocks."""
        with self._changed:
            self._changed.notify_all()

    def _wait_while_ending(self, claim: Claim, deadline: Deadline) -> None:
        """Wait while a session that is ending has or claims the console. Needs the lock."""
        while (contest := self._contests.get(claim.console)) and _is_to_be_free(contest):
            if claim.session.is_ending:
                raise TransportClosed("the session no longer wants the console")
            try:
                self._changed.wait(deadline.remaining())
            except TimeoutError:
                return

    def _check(self, contest: _Contest, claim: Claim) -> None:
        """Raise ConsoleBusy unless a claim may take the console over. Needs the lock."""
        if claim.policy is Policy.REFUSE or contest.holder is None or not claim.who.grant.may_take_over:
            other = contest.holder or contest.challenger
            assert other is not None
            raise ConsoleBusy(f"the console is in use{self._by(other)}")
        if contest.challenger:
            raise ConsoleBusy("another client is taking this console over right now")
        now = self._clock()
        contest.losers = {who: until for who, until in contest.losers.items() if until > now}
        if claim.who.identity in contest.losers:
            contest.losers[claim.who.identity] = now + HOLD_OFF
            raise ConsoleBusy(
                f"the console was taken over{self._by(contest.holder)}; "
                f"to take it back, wait {HOLD_OFF:.0f} seconds and then open it again"
            )

    def _evict(self, claim: Claim) -> bool:
        with self._changed:
            if (previous := self._take_from(claim)) is None:
                return False
            claim.evicted = previous
        previous.session.end(TAKEN_OVER, self._reason(claim))
        return True

    def _take_from(self, claim: Claim) -> Claim | None:
        """Return the holder that a claim takes over, once, and refuse its client for now. Needs the lock."""
        previous, claim.previous = claim.previous, None
        if previous:
            contest = self._contests[claim.console]
            contest.losers.pop(claim.who.identity, None)
            contest.losers[previous.who.identity] = self._clock() + HOLD_OFF
        return previous

    def _may_be_free_soon(self, claim: Claim) -> bool:
        with self._changed:
            contest = self._contests.get(claim.console)
            if contest and (contest.marks or (claim.evicted and contest.holder is claim.evicted)):
                return True
            return self._ended.get(claim.console, -math.inf) + _MOMENTS > self._clock()

    def _won(self, claim: Claim) -> None:
        with self._changed:
            contest = self._contests[claim.console]
            previous = self._take_from(claim)
            contest.challenger, contest.holder = None, claim
            loser, claim.evicted = previous or claim.evicted, None
            self._expect(contest)
            self._changed.notify_all()
        if loser:
            logger.info(
                "session %s took the %s console of %s/%s over from session %s",
                claim.session.id,
                claim.console.subresource,
                claim.console.namespace,
                claim.console.vmi,
                loser.session.id,
            )
        if previous:
            previous.session.end(TAKEN_OVER, self._reason(claim))

    def _given_up(self, claim: Claim) -> None:
        with self._changed:
            claim.previous = claim.evicted = None
            contest = self._contests.get(claim.console)
            if contest is None or claim not in (contest.holder, contest.challenger):
                return
            if contest.challenger is claim:
                contest.challenger = None
            else:
                contest.holder = None
                self._note_end(claim.console)
            self._settle(claim.console, contest)

    def _settle(self, console: Console, contest: _Contest) -> None:
        """Tell the holder and waiting claims of a change, and forget an unused console. Needs the lock."""
        self._expect(contest)
        if contest.holder is contest.challenger is None and not contest.marks:
            del self._contests[console]
        self._changed.notify_all()

    def _note_end(self, console: Console) -> None:
        """Remember for five seconds that a session has ended. Needs the lock."""
        now = self._clock()
        self._ended[console] = now
        self._ended.move_to_end(console)
        while next(iter(self._ended.values())) + _MOMENTS <= now:
            self._ended.popitem(last=False)

    def _mark(self, claim: Claim) -> Mark:
        mark = Mark(self, claim.console, self._reason(claim))
        with self._changed:
            contest = self._contests.setdefault(claim.console, _Contest())
            if len(contest.marks) >= _MOST_MARKS:
                del contest.marks[next(iter(contest.marks))]
            contest.marks[mark] = None
            self._expect(contest)
        return mark

    def _unmark(self, mark: Mark) -> None:
        with self._changed:
            contest = self._contests.get(mark.console)
            if contest and mark in contest.marks:
                del contest.marks[mark]
                self._settle(mark.console, contest)

    def _expect(self, contest: _Contest) -> None:
        """Tell the holder what a loss of its upstream means now, if that has changed. Needs the lock."""
        holder, challenger = contest.holder, contest.challenger
        if holder is None:
            return
        reason = next((mark.reason for mark in reversed(contest.marks)), None)
        if challenger and holder in (challenger.previous, challenger.evicted):
            reason = self._reason(challenger)
        if reason != holder.expected:
            holder.expected = reason
            holder.session.expect_takeover(reason)

    def _reason(self, winner: Claim) -> str:
        return f"taken-over{':' if self._show_user else ''}{self._by(winner)}"

    def _by(self, claim: Claim) -> str:
        return f" by {claim.who.grant.user}" if self._show_user else ""


def _is_to_be_free(contest: _Contest) -> bool:
    """Whether a session that keeps others from the console is about to release it."""
    return any(
        claim is not None and claim.session.is_ending for claim in (contest.holder, contest.challenger)
    )
