"""Who keeps a console that several sessions want at a time. No I/O.

The words of :class:`.Policy` say what becomes of the second client of a console. A session first reaches for
the console, then dials, and then has it. Of those that reach for one console there is one at a time.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

from ..console_policies import Policy
from ..values import BusyReason, Console, MessageKind, SessionRef, User
from .records import ConsoleRecord, Entry, Identity

__all__ = ["Contests", "Obstacle", "takes_over"]

_HOLD_OFF = 30.0  # seconds for which a client that lost a console has to be quiet before it takes it back
_MOMENTS = 5.0  # seconds in which KubeVirt may not have seen yet that a session of ours has ended
_MOST_MARKS = 16  # of one console
_MOST_LOSERS = 64  # of one console
_MOST_ENDED = 65536


class Obstacle(NamedTuple):
    """Why a newcomer cannot have a console, and who is in the way."""

    reason: BusyReason
    other: Entry


def takes_over(newcomer: Entry) -> Entry | None:
    """Return the session that a newcomer without an obstacle would take the console from."""
    return newcomer.place.holder if newcomer.policy is Policy.TAKEOVER else None


class Contests:
    """The contests for all consoles."""

    def __init__(self) -> None:
        self._ended: OrderedDict[Console, float] = OrderedDict()  # when a session did, the oldest first

    # A newcomer

    def obstacle(self, newcomer: Entry, now: float) -> Obstacle | None:
        """Return what keeps a newcomer from a console. Changes nothing."""
        place = newcomer.place
        other = place.holder or place.challenger
        if newcomer.policy is Policy.PASSTHROUGH or other is None:
            return None
        if newcomer.policy is Policy.REFUSE or place.holder is None or not newcomer.session.may_take_over:
            return Obstacle(BusyReason.IN_USE, other)
        if place.challenger:
            return Obstacle(BusyReason.BEING_TAKEN, place.challenger)
        if place.losers.get(newcomer.identity, now) > now:
            return Obstacle(BusyReason.HELD_OFF, other)
        return None

    def is_free(self, newcomer: Entry) -> bool:
        """Whether a newcomer without an obstacle gets its console for sure, and nobody has to learn it soon.

        From when it reaches for the console, nobody else can, and whoever is published with it loses it.
        """
        place = newcomer.place
        if newcomer.policy is Policy.PASSTHROUGH:
            return True
        return not (place.holder or place.challenger or place.marks or place.waiters)

    def hold_off(self, place: ConsoleRecord, who: Identity, now: float) -> None:
        """Hold a client off, anew if it is already."""
        place.losers.pop(who, None)
        place.losers[who] = now + _HOLD_OFF
        if len(place.losers) > _MOST_LOSERS:
            del place.losers[next(iter(place.losers))]

    def reach(self, newcomer: Entry) -> None:
        """Have a newcomer without an obstacle reach for its console."""
        place = newcomer.place
        if newcomer.policy is not Policy.PASSTHROUGH:
            place.challenger, place.target, place.evicted = newcomer, takes_over(newcomer), None
            self.expect(place)

    def restore(self, holder: Entry) -> None:
        """Give a console that nobody has to a session that had it before."""
        place = holder.place
        place.holder = holder
        if place.challenger and not place.target:
            place.target = takes_over(place.challenger)
        self.expect(place)

    # A challenger

    def evict(self, challenger: Entry, now: float) -> bool:
        """End the session that a challenger takes the console from, once.

        :returns: whether KubeVirt may take a session of ours for somebody who has the console.
        """
        place = challenger.place
        if place.challenger is challenger:
            if place.target:
                place.evicted = self._lose(place, challenger, now)
                return True
            if place.evicted and place.holder is place.evicted:
                return True
        return bool(place.marks) or self._ended.get(place.console, -math.inf) + _MOMENTS > now

    def win(self, challenger: Entry, now: float) -> Entry | None:
        """Give the console to the one that reaches for it; return who has lost it."""
        place = challenger.place
        if place.holder is not place.evicted:
            place.target = place.target or place.holder  # one that was published since
        loser = self._lose(place, challenger, now) if place.target else place.evicted
        place.challenger, place.holder, place.evicted = None, challenger, None
        self.expect(place)
        return loser

    def _lose(self, place: ConsoleRecord, challenger: Entry, now: float) -> Entry:
        """Tell the one who loses the console, and hold its client off."""
        loser, place.target = place.target, None
        assert loser is not None
        self.hold_off(place, loser.identity, now)
        loser.tell(MessageKind.LOST, challenger.session.user)
        return loser

    # Those who go

    def give_up(self, entry: Entry, now: float) -> None:
        """Let others have the console. Idempotent."""
        place = entry.place
        if place.challenger is entry:
            place.challenger = place.target = place.evicted = None
        elif place.holder is entry:
            place.holder = None
            self._note_end(place.console, now)
        else:
            return
        if place.holder is place.challenger is None:
            place.losers.clear()
        self.expect(place)

    def _note_end(self, console: Console, now: float) -> None:
        """Remember for a moment that a session has ended."""
        ended = self._ended
        ended[console] = now
        ended.move_to_end(console)
        while len(ended) > _MOST_ENDED or next(iter(ended.values())) + _MOMENTS <= now:
            ended.popitem(last=False)

    def mark(self, place: ConsoleRecord, ref: SessionRef, by: User | None) -> None:
        """Take note that KubeVirt may still open the console for an opening that was given up."""
        if len(place.marks) >= _MOST_MARKS and ref not in place.marks:
            del place.marks[next(iter(place.marks))]
        place.marks[ref] = by
        self.expect(place)

    def unmark(self, place: ConsoleRecord, ref: SessionRef) -> None:
        """Forget a mark. Idempotent."""
        if ref in place.marks:
            del place.marks[ref]
            self.expect(place)

    def expect(self, place: ConsoleRecord) -> None:
        """Tell who has the console what a loss means now, if that has changed."""
        holder, challenger = place.holder, place.challenger
        if holder is None:
            return
        by = next(reversed(place.marks.values()), None)
        if challenger and holder in (place.target, place.evicted):
            by = challenger.session.user
        if by != holder.expected:
            holder.expected = by
            holder.tell(MessageKind.KEEP if by is None else MessageKind.EXPECT, by)
