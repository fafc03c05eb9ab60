"""Decides on sessions from their request to their end: slots first, then the console. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..console_policies import Policy
from ..values import (
    NO_LIMITS,
    BusyReason,
    Console,
    Decision,
    Event,
    EventKind,
    Held,
    MessageKind,
    Outcome,
    Request,
    SessionRef,
    SlotLimits,
    Stage,
    User,
)
from .contests import Contests, Obstacle, takes_over
from .records import ConsoleRecord, Entry, MemberRecord
from .slots import Slots, donor_for, inheritable

__all__ = ["Openings"]

_MOST_IN_WAY = 16  # sessions that are looked at for one newcomer
_MOST_WAITERS = 256  # for one console, and for one user
_MOST_MARKS = 4096  # of one member

_Waiters = dict[tuple[MemberRecord, str], None]


class Openings:
    """The sessions of all members, by their consoles."""

    def __init__(self) -> None:
        self._slots = Slots()
        self._contests = Contests()
        self._places: dict[Console, ConsoleRecord] = {}
        self._waiters: dict[User, _Waiters] = {}  # for one of their user's sessions to end

    @property
    def sizes(self) -> dict[str, int]:
        """How many things are remembered, by kind."""
        return {"consoles": len(self._places), "users": self._slots.users, "waiters": len(self._waiters)}

    # Admission

    def admit(self, record: MemberRecord, request: Request, now: float) -> Decision:
        """Decide on a session of a member."""
        entry = record.entries.get(request.session.id)
        if entry and entry.stage is not Stage.WAITING:
            return Decision(Outcome.ADMITTED, messages=record.messages)
        newcomer = entry or self._newcomer(record, request)
        newcomer.policy = request.policy
        self._stop_waiting(newcomer)
        obstacle = self._contests.obstacle(newcomer, now)
        donor = None if entry else donor_for(newcomer, request.limits)
        if entry is None and (limit := self._limit(newcomer, donor, obstacle)):
            return self._full(newcomer, request.may_wait, limit)
        waits = request.may_wait and self._waits(newcomer, obstacle)
        if obstacle and not waits:
            return self._busy(newcomer, obstacle, now)
        if entry is None:
            self._add(newcomer, donor)
        if waits:
            return self._wait_for_console(newcomer, obstacle)
        newcomer.stage = Stage.DIALLING
        is_free = self._contests.is_free(newcomer)
        self._contests.reach(newcomer)
        return Decision(Outcome.ADMITTED, messages=record.messages, decided=is_free)

    def _newcomer(self, record: MemberRecord, request: Request) -> Entry:
        session = request.session
        place = self._places.get(session.console) or ConsoleRecord(session.console)
        entry = Entry(record, session, place, self._slots.counts_for(session.user, place))
        entry.limits = request.limits
        return entry

    def _limit(self, newcomer: Entry, donor: Entry | None, obstacle: Obstacle | None) -> str:
        """Return the limit that keeps a newcomer out, "" if none does."""
        if newcomer.limits == NO_LIMITS:
            return ""
        replaced = None if obstacle else takes_over(newcomer)
        return self._slots.reached(newcomer.limits, newcomer, donor, replaced)

    def _add(self, entry: Entry, donor: Entry | None = None) -> None:
        """Count a session, which inherits the slot of another perhaps."""
        entry.member.entries[entry.session.id] = entry
        entry.place.entries[entry] = None
        self._places[entry.session.console] = entry.place
        self._slots.take(entry)
        if donor:
            self._slots.give(donor, donor.counts)

    def _full(self, newcomer: Entry, may_wait: bool, limit: str) -> Decision:
        """Refuse a newcomer; have it wait if somebody is about to make room, or may have left."""
        place, user = newcomer.place, newcomer.session.user
        own = [one for one in place.entries if one.session.user == user and not one.ending]
        count = newcomer.counts[SlotLimits._fields.index(limit)]
        ending = limit != "sessions" and count.ending > 0
        if not may_wait or not (own or ending):
            return Decision(Outcome.FULL, limit, messages=newcomer.member.messages)
        _wait(place.waiters, newcomer)
        if limit == "user":
            _wait(self._waiters.setdefault(user, {}), newcomer)
        return _waiting(newcomer, own[:_MOST_IN_WAY], ending, limit=limit)

    def _waits(self, newcomer: Entry, obstacle: Obstacle | None) -> bool:
        """Whether somebody is ending who has the console, or is to be looked at."""
        place = newcomer.place
        holder, challenger = place.holder, place.challenger
        if newcomer.policy is Policy.PASSTHROUGH or not (holder or challenger):
            return False
        # Of a takeover its member can look at its own session first, which costs nobody else anything.
        return bool(obstacle or (holder and (holder.ending or holder.member is newcomer.member)))

    def _wait_for_console(self, newcomer: Entry, obstacle: Obstacle | None) -> Decision:
        place = newcomer.place
        there = [one for one in (place.holder, place.challenger) if one]
        in_way = [one for one in there if not one.ending]
        _wait(place.waiters, newcomer)
        reason = obstacle.reason if obstacle else BusyReason.IN_USE
        by = (obstacle.other if obstacle else there[0]).session.user
        return _waiting(newcomer, in_way, len(in_way) < len(there), busy=reason, by=by)

    def _busy(self, newcomer: Entry, obstacle: Obstacle, now: float) -> Decision:
        if obstacle.reason is BusyReason.HELD_OFF:
            self._contests.hold_off(newcomer.place, newcomer.identity, now)
        if newcomer.session.id in newcomer.member.entries:
            self._release(newcomer, now)
        by = obstacle.other.session.user
        return Decision(Outcome.BUSY, busy=obstacle.reason, by=by, messages=newcomer.member.messages)

    # The dial

    def opened(self, record: MemberRecord, session: str, now: float) -> bool:
        """Give an admitted session its console; return whether it has it."""
        entry = record.entries.get(session)
        if entry is None or entry.stage is Stage.WAITING or (entry.ending and entry.stage is Stage.DIALLING):
            return False
        place = entry.place
        if entry.policy is not Policy.PASSTHROUGH and place.holder is not entry:
            if place.challenger is not entry:
                return False
            self._win(entry, now)
        entry.stage = Stage.OPEN
        return True

    def _win(self, winner: Entry, now: float) -> None:
        """Give a console to a session, which inherits what it and the loser have in common."""
        loser = self._contests.win(winner, now)
        self._wake(winner)
        if loser and loser in loser.place.entries:
            self._slots.give(loser, inheritable(loser, winner, winner.limits))

    def evict(self, record: MemberRecord, session: str, now: float) -> bool:
        """See :meth:`.Contests.evict`."""
        entry = record.entries.get(session)
        return entry is not None and self._contests.evict(entry, now)

    # What members report

    def apply(self, record: MemberRecord, events: Iterable[Event], now: float) -> None:
        """Take note of what became of a member's sessions."""
        for event in events:
            if event.kind is EventKind.MARK:
                self._mark(record, event)
            elif event.kind is EventKind.UNMARK:
                self._unmark(record, event.session)
            elif event.kind is EventKind.OPENED:
                if record.is_known:  # else its publication says so
                    self.opened(record, event.session, now)
            elif entry := record.entries.get(event.session):
                self._note(entry, event.kind, now)
            elif event.kind is EventKind.RELEASED:
                record.discard(event.session)

    def _note(self, entry: Entry, kind: EventKind, now: float) -> None:
        if kind is EventKind.RELEASED:
            self._release(entry, now)
            return
        self._slots.end(entry)
        if kind is EventKind.GIVEN_UP:
            entry.policy = Policy.PASSTHROUGH
            self._slots.fail(entry)
            self._contests.give_up(entry, now)
        self._wake(entry)

    def _release(self, entry: Entry, now: float) -> None:
        """Let go of all that a session holds."""
        self._stop_waiting(entry)
        self._contests.give_up(entry, now)
        self._slots.release(entry)
        del entry.member.entries[entry.session.id], entry.place.entries[entry]
        entry.member.discard(entry.session.id)
        self._wake(entry)
        self._drop_empty(entry.place)

    def _wake(self, entry: Entry) -> None:
        """Tell those who wait for a console, or for a slot of a user, that something has changed."""
        waiters = entry.place.waiters
        if self._waiters:
            waiters = waiters | self._waiters.pop(entry.session.user, {})
        for record, session in waiters:
            record.post(MessageKind.FREE, session, None)
        entry.place.waiters.clear()

    def _stop_waiting(self, entry: Entry) -> None:
        key = entry.member, entry.session.id
        entry.place.waiters.pop(key, None)
        if self._waiters:
            self._waiters.get(entry.session.user, {}).pop(key, None)

    def _drop_empty(self, place: ConsoleRecord) -> None:
        if place.is_empty:
            self._places.pop(place.console, None)

    def _mark(self, record: MemberRecord, event: Event) -> None:
        assert event.console is not None
        place = self._places.setdefault(event.console, ConsoleRecord(event.console))
        record.marks[event.session] = event.console
        self._contests.mark(place, SessionRef(record.id, event.session), event.by)
        if len(record.marks) > _MOST_MARKS:
            self._unmark(record, next(iter(record.marks)))

    def _unmark(self, record: MemberRecord, session: str) -> None:
        console = record.marks.pop(session, None)
        if console and (place := self._places.get(console)):
            self._contests.unmark(place, SessionRef(record.id, session))
            self._drop_empty(place)

    # What members publish

    def restore(self, record: MemberRecord, sessions: Iterable[Held], now: float) -> None:
        """Count the sessions of a member again, whatever the limits are."""
        for held in sessions:
            record.unconfirmed.discard(held.session.id)
            entry = record.entries.get(held.session.id)
            if entry is None:
                entry = self._newcomer(record, Request(held.session))
                self._add(entry)
            entry.stage = held.stage
            self._restore_claim(entry, held.policy, now)
            if held.ending:
                self._slots.end(entry)

    def _restore_claim(self, entry: Entry, policy: Policy, now: float) -> None:
        """Give a session its console, or its turn, unless another member has it by now.

        Of several sessions of one member the last one has it, as KubeVirt gave it to that one.
        """
        entry.policy, place = policy, entry.place
        if policy is Policy.PASSTHROUGH:
            self._contests.give_up(entry, now)
        elif place.challenger is entry:
            if entry.stage is Stage.OPEN:
                self._win(entry, now)
        elif entry.stage is Stage.OPEN:
            if place.holder is None or place.holder.member is entry.member:
                self._contests.restore(entry)
        elif entry.stage is Stage.DIALLING and self._contests.obstacle(entry, now) is None:
            self._contests.reach(entry)

    def release_unconfirmed(self, record: MemberRecord, now: float) -> None:
        """Release the sessions that a member has not named again."""
        for entry in [entry for id, entry in record.entries.items() if id in record.unconfirmed]:
            self._release(entry, now)
        record.unconfirmed = set()

    def forget(self, record: MemberRecord, now: float) -> None:
        """Release all that a member holds."""
        for entry in tuple(record.entries.values()):
            self._release(entry, now)
        for session in tuple(record.marks):
            self._unmark(record, session)


def _wait(waiters: _Waiters, newcomer: Entry) -> None:
    key = newcomer.member, newcomer.session.id
    waiters.pop(key, None)
    waiters[key] = None
    if len(waiters) > _MOST_WAITERS:
        del waiters[next(iter(waiters))]


def _waiting(
    newcomer: Entry,
    in_way: list[Entry],
    ending: bool,
    *,
    limit: str = "",
    busy: BusyReason | None = None,
    by: User | None = None,
) -> Decision:
    """Return that a newcomer has to wait, after the members of those in its way are told to look."""
    for other in in_way:
        if other.member is not newcomer.member:
            other.tell(MessageKind.LOOK)
    refs: Iterator[SessionRef] = (other.ref for other in in_way)
    return Decision(Outcome.WAIT, limit, busy, by, ending, tuple(refs), newcomer.member.messages)
