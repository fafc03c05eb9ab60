"""All that processes share, as one object that decides on values and a time. No I/O, and no locks."""

from __future__ import annotations

import math
from collections import Counter
from itertools import islice

from ..membership import Beat, Copy, Issued, Member, Publication, Pulse, Revoked, RulesPage, SessionsPage
from ..revocations import Rule
from ..store import PAGE
from ..tickets import Ticket
from ..values import Confirmed, Decision, Event, Evicted, Held, Message, MessageKind, Outcome, Request
from .copies import CopyBook
from .failures import FailureBuckets
from .openings import Openings
from .records import MemberRecord
from .roster import Roster
from .rule_log import RuleLog
from .tickets import TicketBook

__all__ = ["SharedState"]


class SharedState:
    """What :class:`.Store` promises, for one thread at a time.

    Its methods are those of the store, with the time in addition. ``now`` is the store's clock in seconds,
    which never goes back. ``wall`` is UNIX time, for the end of revocation rules.

    :param epoch: random.
    :param settled: whether there was nothing before, so that nobody's publication has to be awaited.
    """

    def __init__(self, epoch: str, now: float, *, settled: bool) -> None:
        self._roster = Roster(epoch, now, settled=settled)
        self._openings = Openings()
        self._tickets = TicketBook()
        self._failures = FailureBuckets()
        self._rules = RuleLog()
        self._copies = CopyBook()

    @property
    def sizes(self) -> Counter[str]:
        """How many things are remembered, by kind; for tests."""
        return Counter(
            tickets=len(self._tickets),
            failures=len(self._failures),
            rules=len(self._rules),
            members=len(self._roster.ids),
            copies=len(self._copies),
            turns=self._copies.turns,
            **self._openings.sizes,
        )

    # Members

    @property
    def shortest_lease(self) -> float:
        """Of all members, in seconds; infinite if there are none."""
        return min((record.member.lease for record in self._roster), default=math.inf)

    def begin_epoch(self, epoch: str, now: float) -> None:
        """The store may have lost data, or may be an old copy: see :class:`.Roster`. Its tickets are void."""
        self._advance(now)
        self._roster.begin_epoch(epoch, now)
        self._tickets = TicketBook()

    def publish(self, publication: Publication, now: float, wall: float) -> Pulse:
        """See :meth:`.Store.publish`."""
        self._advance(now)
        record = self._roster.join(publication, now)
        if publication.part == 0:
            record.is_known, record.unconfirmed = False, set(record.entries)
        self._openings.restore(record, publication.sessions, now)
        self._rules.merge(publication.rules, wall)
        if publication.last:
            self._openings.release_unconfirmed(record, now)
            self._roster.confirm(record)
        return self._pulse(record, Beat(0), now)

    def beat(self, member: str, beat: Beat, now: float) -> Pulse:
        """See :meth:`.Store.beat`."""
        self._advance(now)
        record = self._roster.get(member)
        if record:
            self._note_beat(record, beat, now)
        return self._pulse(record, beat, now)

    def _note_beat(self, record: MemberRecord, beat: Beat, now: float) -> None:
        self._roster.renew(record, now)
        if beat.number > record.batch:
            record.batch = beat.number
            self._failures.push(beat.failures, now)
        if beat.epoch == self._roster.epoch:
            record.applied = beat.applied
            record.acknowledge(beat.seen)

    def _pulse(self, record: MemberRecord | None, beat: Beat, now: float) -> Pulse:
        roster, knows = self._roster, beat.epoch == self._roster.epoch
        failures, failures_version = self._failures.changed(beat.failures_since if knows else 0, now)
        return Pulse(
            epoch=roster.epoch,
            version=self._rules.version,
            known=record is not None and record.is_known,
            settled=roster.settled(now),
            held=len(record.entries) if record else 0,
            roster=roster.version,
            members=None if knows and beat.roster == roster.version else roster.ids,
            messages=record.messages if record else (),
            failures=failures,
            failures_version=failures_version,
            schema=roster.schema,
        )

    def leave(self, member: str, now: float) -> None:
        """See :meth:`.Store.leave`."""
        self._advance(now)
        self._copies.forget(member)
        if record := self._roster.get(member):
            self._remove(record, now)

    def members(self, now: float) -> tuple[Member, ...]:
        """See :meth:`.Store.members`."""
        self._advance(now)
        return tuple(record.member for record in self._roster)

    def _advance(self, now: float) -> None:
        """Forget the members whose leases have passed."""
        for record in self._roster.lapsed(now):
            self._remove(record, now)

    def _remove(self, record: MemberRecord, now: float) -> None:
        self._roster.remove(record)
        self._openings.forget(record, now)
        self._copies.forget(record.id)

    def news(self, member: str) -> bool:
        """Whether there may be news for a member since the last call."""
        record = self._roster.get(member)
        if record is None:
            return True
        has_news, record.has_news = record.has_news, False
        return has_news or record.applied < self._rules.version

    # Openings

    def admit(self, member: str, request: Request, events: tuple[Event, ...], now: float) -> Decision:
        """See :meth:`.Store.admit`."""
        self._advance(now)
        record = self._roster.get(member)
        if record is None:
            return Decision(Outcome.UNSETTLED)
        if events:
            self._openings.apply(record, events, now)
        if not record.is_known or not self._roster.settled(now):
            return Decision(Outcome.UNSETTLED, messages=record.messages)
        return self._openings.admit(record, request, now)

    def opened(self, member: str, session: str, now: float) -> Confirmed:
        """See :meth:`.Store.opened`."""
        self._advance(now)
        record = self._roster.get(member)
        if record is None:
            return Confirmed(False, self._rules.version, known=False)
        admitted = record.is_known and self._openings.opened(record, session, now)
        return Confirmed(admitted, self._rules.version, record.messages, record.is_known)

    def evict(self, member: str, session: str, now: float) -> Evicted:
        """See :meth:`.Store.evict`."""
        self._advance(now)
        record = self._roster.get(member)
        if record is None:
            return Evicted(False)
        return Evicted(self._openings.evict(record, session, now), record.messages)

    def report(self, member: str, events: tuple[Event, ...], now: float) -> tuple[Message, ...]:
        """See :meth:`.Store.report`."""
        self._advance(now)
        record = self._roster.get(member)
        if record is None:
            return ()
        self._openings.apply(record, events, now)
        return record.messages

    # Tickets and revocations

    def issue(self, digest: str, ticket: Ticket, now: float) -> Issued:
        """See :meth:`.Store.issue`."""
        return self._tickets.issue(digest, ticket, now)

    def redeem(self, digest: str, now: float) -> Ticket | None:
        """See :meth:`.Store.redeem`."""
        return self._tickets.redeem(digest, now)

    def revoke(self, rules: tuple[Rule, ...], wall: float) -> Revoked:
        """See :meth:`.Store.revoke`."""
        return self._rules.revoke(rules, wall)

    def lift(self, kick: str, lifted_at: float) -> Revoked:
        """See :meth:`.Store.lift`."""
        return self._rules.lift(kick, lifted_at)

    def rules(self, since: int) -> RulesPage:
        """See :meth:`.Store.rules`."""
        rules, version, more = self._rules.since(since)
        return RulesPage(self._roster.epoch, version, rules, more)

    def behind(self, version: int, now: float) -> tuple[Member, ...]:
        """See :meth:`.Store.behind`."""
        self._advance(now)
        return tuple(record.member for record in self._roster if record.applied < version)

    # Copies of what processes fetch for each other

    def borrow(self, member: str, name: str, max_age: float, turn_seconds: float, now: float) -> Copy:
        """See :meth:`.Store.borrow`."""
        self._advance(now)
        return self._copies.borrow(member, name, max_age, turn_seconds, now)

    def keep(self, member: str, name: str, text: str | None, seconds: float, age: float, now: float) -> None:
        """See :meth:`.Store.keep`."""
        self._advance(now)
        self._copies.keep(member, name, text, seconds, age, now)

    # For the operator

    def sessions(self, member: str, after: str, now: float) -> SessionsPage:
        """See :meth:`.Store.sessions`."""
        self._advance(now)
        record = self._roster.get(member)
        entries = record.entries if record else {}
        ids = list(islice(sorted(id for id in entries if id > after), PAGE + 1))
        held: tuple[Held, ...] = tuple(entries[id].held for id in ids[:PAGE])
        return SessionsPage(held, ids[PAGE - 1] if len(ids) > PAGE else "")

    def tell(self, member: str, session: str, code: int, reason: str, now: float) -> bool:
        """See :meth:`.Store.tell`."""
        self._advance(now)
        record = self._roster.get(member)
        entry = record.entries.get(session) if record else None
        if entry:
            entry.tell(MessageKind.END, None, code, reason)
        return entry is not None
