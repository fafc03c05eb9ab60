"""How many sessions there may be: who counts, and who inherits whose slot. No I/O.

A session counts until both of its legs are closed. Two kinds of newcomers inherit a slot instead:

- If a user opens a console again while their session with it is ending, the newcomer inherits all of its
  slot.
- If a session takes a console over, it inherits its place at the console, or all if both are of one user.

Whose slot is inherited counts no more, but still costs what it did. So for each limit at most as many may be
in that state as may count. In the limit of all sessions they count for everybody else.

If an opening is given up, no upstream is left, and its client is only told. So it leaves its slot to anybody.
Again, for each limit at most as many may be in that state as may count.
"""

from __future__ import annotations

import math

from ..values import SlotLimits, User
from .records import ConsoleRecord, Count, Counts, Entry

__all__ = ["Slots", "donor_for", "inheritable"]


class Slots:
    """The counts. Each operation takes constant time, but for the sessions of one console."""

    def __init__(self) -> None:
        self._all = Count()
        self._users: dict[User, Count] = {}

    @property
    def users(self) -> int:
        """How many users have sessions."""
        return len(self._users)

    def counts_for(self, user: User, place: ConsoleRecord) -> Counts:
        """Return what a session of a user with a console would count in, in the order of the limits."""
        return self._all, self._users.get(user) or Count(), place.count

    def reached(
        self, limits: SlotLimits, newcomer: Entry, donor: Entry | None, replaced: Entry | None
    ) -> str:
        """Return the name of the first limit that keeps a newcomer out; "" if none does.

        :param donor: the ending session whose slot it inherits.
        :param replaced: the session that it takes the console from.
        """
        inherited: tuple[Count, ...] = ()
        for other in (donor, replaced):
            if other:
                inherited += inheritable(other, newcomer, limits)
        for name, most, count in zip(SlotLimits._fields, limits, newcomer.counts, strict=True):
            here = count.counted - 1 if count in inherited else count.counted
            if count is self._all and count not in inherited:
                here += count.given
            if most and here >= most:
                return name
        return ""

    def take(self, newcomer: Entry) -> None:
        """Count a session."""
        self._users.setdefault(newcomer.session.user, newcomer.counts[1])
        for count in newcomer.counts:
            count.counted += 1

    def end(self, entry: Entry) -> None:
        """Take note that a session is ending. Idempotent."""
        if not entry.ending:
            entry.ending = True
            for count in entry.counts:
                if count not in entry.given + entry.failed:
                    count.ending += 1

    def fail(self, entry: Entry) -> None:
        """Take note that an opening was given up, after :meth:`end`. Idempotent."""
        for count, most in zip(entry.counts, entry.limits, strict=True):
            if count not in entry.given + entry.failed and count.failed < (most or math.inf):
                count.counted -= 1
                count.ending -= 1
                count.failed += 1
                entry.failed += (count,)

    def give(self, donor: Entry, counts: tuple[Count, ...]) -> None:
        """Let another have a session's slot: the session counts no more in some of its counts."""
        for count in counts:
            count.counted -= 1
            count.ending -= donor.ending
            count.given += 1
        donor.given += counts

    def release(self, entry: Entry) -> None:
        """Count a session no more. Once only."""
        for count in entry.counts:
            if count in entry.given:
                count.given -= 1
            elif count in entry.failed:
                count.failed -= 1
            else:
                count.counted -= 1
                count.ending -= entry.ending
        user = entry.session.user
        if self._users[user].is_empty:
            del self._users[user]


def donor_for(newcomer: Entry, limits: SlotLimits) -> Entry | None:
    """Return the ending session whose slot a newcomer inherits: of the same user, with the same console."""
    place = newcomer.place
    for entry in place.entries if place.count.ending else ():
        if entry.ending and len(inheritable(entry, newcomer, limits)) == len(entry.counts):
            return entry
    return None


def inheritable(donor: Entry, newcomer: Entry, limits: SlotLimits) -> tuple[Count, ...]:
    """Return the counts in which a newcomer may have the slot of a session with the same console."""
    shared = donor.counts if donor.session.user == newcomer.session.user else donor.counts[2:]
    mosts = dict(zip(donor.counts, limits, strict=True))
    return tuple(
        count
        for count in shared
        if count not in donor.given + donor.failed and count.given < (mosts[count] or math.inf)
    )
