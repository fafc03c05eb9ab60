"""Who keeps a console that several clients want at a time. No I/O.

KubeVirt serves one client of a console: whoever comes last throws the one before out, without a word, and
two viewers that reconnect by themselves do so to each other for ever. What is done about that is configured
for each console: nothing; or the one who has it keeps it; or the newcomer gets it, and the one before is
told, and is not let in again for as long as it only reconnects. A client that is leaving is waited for: the
page that is loaded anew must find its console free. An opening that was given up may take the console from
somebody all the same, so it leaves a mark, which says what that one is told.
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

__all__ = [
    "HOLD_OFF",
    "TAKEN_OVER",
    "Arbitration",
    "Claim",
    "Console",
    "Mark",
    "Requester",
]

logger = logging.getLogger("wsproxy.arbitration")

TAKEN_OVER = 4410
"""Close code for a client whose console another one took over."""

HOLD_OFF = 30.0
"""Seconds for which a client that lost a console has to be quiet before it may take it back."""

_MOMENTS = 5.0  # seconds in which KubeVirt may not have seen yet that a session of ours has ended
_MOST_MARKS = 16  # of one console


@dataclass(frozen=True)
class Console:
    """One subresource of one virtual machine instance."""

    namespace: str
    vmi: str
    subresource: str


@dataclass(frozen=True)
class Requester:
    """Who wants a console.

    :ivar grant: what allows it.
    :ivar address: of the client; "" if it is not known.
    """

    grant: Grant
    address: str

    @property
    def identity(self) -> tuple[str, str | int, str]:
        """What a client that reconnects by itself has in common with what it was."""
        return self.grant.token_id, self.grant.user, self.address


class ConsoleHolder(Protocol):
    """A session that has a console, or is about to get it."""

    @property
    def id(self) -> str: ...

    @property
    def is_ending(self) -> bool:
        """Whether it is about to give the console up, as its client has left perhaps. Never blocks."""
        ...

    def expect_takeover(self, reason: str | None) -> None:
        """If the upstream is lost from now on, that is because the console was taken over.

        Any thread, never blocks, and calls nobody back.

        :param reason: what the client is told then; None takes this back.
        """
        ...

    def end(self, code: int, reason: str) -> None:
        """End the session with a Close of ours. Any thread, never blocks."""
        ...


class Claim:
    """A console that a session has, or reaches for, until it gives it up."""

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
        self._arbitration = arbitration  # None where nobody is asked
        # Guarded by the arbitration.
        self.previous: Claim | None = None  # what it takes over, while it is reached for
        self.evicted: Claim | None = None  # the same, once that has been ended
        self.expected: str | None = None  # what its session was told to expect

    @property
    def preserves_session(self) -> bool:
        """Whether KubeVirt, too, is to leave the console to a client that has it already, whoever that is."""
        return self.policy is Policy.REFUSE

    @property
    def asks_first(self) -> bool:
        """Whether KubeVirt is to say first that somebody has the console, and not to give it to us."""
        return self.policy is not Policy.PASSTHROUGH

    def evict(self) -> bool:
        """KubeVirt says that the console is in use: end the session of ours that has it.

        Once only, never blocks.

        :returns: False if there is none, or it is not to be taken over.
        """
        return self._arbitration is not None and self._arbitration._evict(self)

    @property
    def may_be_free_soon(self) -> bool:
        """Whether it is a session or an opening of ours that KubeVirt takes for somebody who has it."""
        return self._arbitration is not None and self._arbitration._may_be_free_soon(self)

    def won(self) -> None:
        """The console is open: who had it before is told. Once only, never blocks."""
        if self._arbitration:
            self._arbitration._won(self)

    def mark(self) -> Mark | None:
        """Leave a mark, as KubeVirt may still open the console for this claim; None where nobody is asked.

        It stays when the claim is released. Never blocks.
        """
        return self._arbitration._mark(self) if self._arbitration else None

    def release(self) -> None:
        """The console is not wanted any more, or could not be had. Idempotent, never blocks."""
        if self._arbitration:
            self._arbitration._given_up(self)


class Mark:
    """What is left of an opening that was given up: who has the console may lose it to that.

    It keeps nobody from the console.
    """

    def __init__(self, arbitration: Arbitration, console: Console, reason: str) -> None:
        self._arbitration = arbitration
        self.console = console
        self.reason = reason

    def remove(self) -> None:
        """KubeVirt will not open the console for it any more. Any thread, idempotent, never blocks."""
        self._arbitration._unmark(self)


@dataclass
class _Contest:
    """One console, while somebody has it or reaches for it, or may still get it.

    :ivar losers: until when who lost the console to its holder is not let in, by identity.
    :ivar marks: of openings that were given up, the oldest first.
    """

    holder: Claim | None = None
    challenger: Claim | None = None
    losers: dict[tuple[str, str | int, str], float] = field(default_factory=dict)
    marks: dict[Mark, None] = field(default_factory=dict)


class Arbitration:
    """Who has which console, in one process. Safe from every thread.

    :param show_user: whether clients may learn each other's users.
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
        # Guards the attributes below, and what is in them. Never held while a session is ended.
        self._changed = threading.Condition()
        self._contests: dict[Console, _Contest] = {}
        self._ended: OrderedDict[Console, float] = (
            OrderedDict()
        )  # when a session of ours did, the oldest first

    def __len__(self) -> int:
        return len(self._contests)

    def claim(self, console: Console, who: Requester, session: ConsoleHolder, deadline: Deadline) -> Claim:
        """Reach for a console; afterwards it may be dialled.

        Blocks while the session that has it, or reaches for it, is ending, until the deadline at most.

        :raises ConsoleBusy: if the session may not have it.
        :raises TransportClosed: if the session itself is ending.
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
        """Have those that wait see that their own session is ending. Any thread, never blocks."""
        with self._changed:
            self._changed.notify_all()

    def _wait_while_ending(self, claim: Claim, deadline: Deadline) -> None:
        """Wait until nobody has a console, or reaches for it, who is about to give it up. Needs the lock."""
        while (contest := self._contests.get(claim.console)) and _is_to_be_free(contest):
            if claim.session.is_ending:
                raise TransportClosed("the console is not wanted any more")
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
            raise ConsoleBusy("another client is just taking this console over")
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
        """Return what a claim takes over, once, and hold its client off. Needs the lock."""
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
        """Tell everybody that something has changed, and forget what is over. Needs the lock."""
        self._expect(contest)
        if contest.holder is contest.challenger is None and not contest.marks:
            del self._contests[console]
        self._changed.notify_all()

    def _note_end(self, console: Console) -> None:
        """Remember for a moment that a session has ended. Needs the lock."""
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
        """Tell who has the console what a loss means now, if that has changed. Needs the lock."""
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
    """Whether somebody is about to give the console up who keeps others from it."""
    return any(
        claim is not None and claim.session.is_ending for claim in (contest.holder, contest.challenger)
    )
