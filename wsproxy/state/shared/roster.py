"""Which members there are, and whether the store has heard from all of them. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count

from ..membership import Member, Publication
from ..store import SCHEMA
from .records import MemberRecord

__all__ = ["Roster"]

_HEARD = 1.0  # seconds in which every member that is in step has beaten


class Roster:
    """The members, their leases, and the epoch.

    An epoch begins when the store has lost data, or may have. It is unsettled until all members that were
    known have published what they hold, or a lease has passed. For a moment it is so in any case: an old
    snapshot does not name the members that came later.

    :ivar epoch: random.
    :ivar version: grows when a member comes or goes.
    :ivar schema: the newest that all members, and this store, know.
    """

    def __init__(self, epoch: str, now: float, *, settled: bool) -> None:
        self.epoch = epoch
        self.version = 1
        self.schema = SCHEMA
        self._members: dict[str, MemberRecord] = {}
        self._numbers = count(1)
        self._next_lapse = math.inf  # no lease passes before
        self._begun = now
        self._settled = settled
        self._lease = 0.0  # the longest of those who have published
        self._awaited: set[str] = set()  # those who have not
        self._was_known = False  # whether anybody said who there was before

    def begin_epoch(self, epoch: str, now: float) -> None:
        """The store may have lost data: await all members anew, one lease long."""
        self.epoch, self._begun, self._settled, self._lease = epoch, now, False, 0.0
        self._awaited = set(self._members)
        self._was_known = bool(self._members)
        for record in self._members.values():
            record.is_known, record.applied = False, 0
            record.expires = now + record.member.lease
            self._lease = max(self._lease, record.member.lease)
            self._note_lapse(record)

    def settled(self, now: float) -> bool:
        """Whether the store may admit anybody. Once it may, it may for the rest of the epoch."""
        if not self._settled and self._lease:
            waited = now - self._begun
            heard = self._was_known and not self._awaited and waited >= _HEARD
            self._settled = heard or waited >= self._lease
        return self._settled

    # Members

    def __iter__(self) -> Iterator[MemberRecord]:
        return iter(self._members.values())

    def get(self, id: str) -> MemberRecord | None:
        """Return a member; None if there is none of that id, or its lease has passed."""
        return self._members.get(id)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._members)

    def join(self, publication: Publication, now: float) -> MemberRecord:
        """Take in a member that publishes, and renew its lease."""
        member = publication.member
        record = self._members.get(member.id)
        if record is None:
            record = self._members[member.id] = MemberRecord(member, now, self._numbers)
            self._note_change()
        record.member = member
        if not self._settled:
            self._await(member, publication.knew)
        self.renew(record, now)
        return record

    def _await(self, member: Member, knew: tuple[str, ...]) -> None:
        self._lease = max(self._lease, member.lease)
        self._was_known = self._was_known or bool(knew)
        self._awaited.update(id for id in knew if id not in self._members)
        self._awaited.add(member.id)

    def confirm(self, record: MemberRecord) -> None:
        """Take note that a member has published all that it holds."""
        record.is_known = True
        self._awaited.discard(record.id)

    def renew(self, record: MemberRecord, now: float) -> None:
        """Renew a member's lease."""
        record.expires = now + record.member.lease
        self._note_lapse(record)

    def _note_lapse(self, record: MemberRecord) -> None:
        self._next_lapse = min(self._next_lapse, record.expires)

    def lapsed(self, now: float) -> list[MemberRecord]:
        """Return the members whose leases have passed. The caller removes them."""
        if now < self._next_lapse:
            return []
        lapsed = [record for record in self if record.expires <= now]
        self._next_lapse = min((one.expires for one in self if one.expires > now), default=math.inf)
        return lapsed

    def remove(self, record: MemberRecord) -> None:
        """Forget a member."""
        del self._members[record.id]
        self._awaited.discard(record.id)
        self._note_change()

    def _note_change(self) -> None:
        self.version += 1
        self.schema = min([SCHEMA, *(record.member.schema for record in self)])
