"""The store within one process."""

from __future__ import annotations

import secrets
import threading
import time

from ...runtime.deadline import Clock, Deadline
from ...runtime.wall_clock import unix_time
from ..membership import Beat, Copy, Issued, Member, Publication, Pulse, Revoked, RulesPage, SessionsPage
from ..revocations import Rule
from ..shared.shared_state import SharedState
from ..tickets import Ticket
from ..values import Confirmed, Decision, Event, Evicted, Message, Request

__all__ = ["MemoryStore"]


class MemoryStore:
    """A :class:`.Store` in this process. Safe from every thread; only :meth:`listen` blocks.

    :param clock: seconds that never go backwards.
    :param wall_clock: UNIX time, seconds.
    :param settled: False if there may be members that held something before this store began. Then it admits
        nobody until they have published, or a lease has passed.
    """

    def __init__(
        self, clock: Clock = time.monotonic, wall_clock: Clock = unix_time, *, settled: bool = True
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        # Guards all of the state, and is held for each decision: all threads see them in one order.
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._listeners = 0
        self._closed = False
        self._state = SharedState(secrets.token_hex(8), clock(), settled=settled)

    def publish(self, publication: Publication) -> Pulse:
        """See :meth:`.Store.publish`."""
        with self._lock:
            pulse = self._state.publish(publication, self._clock(), self._wall_clock())
            self._notify()
            return pulse

    def beat(self, member: str, beat: Beat) -> Pulse:
        """See :meth:`.Store.beat`."""
        with self._lock:
            return self._state.beat(member, beat, self._clock())

    def leave(self, member: str) -> None:
        """See :meth:`.Store.leave`."""
        with self._lock:
            self._state.leave(member, self._clock())
            self._notify()

    def members(self) -> tuple[Member, ...]:
        """See :meth:`.Store.members`."""
        with self._lock:
            return self._state.members(self._clock())

    def admit(self, member: str, request: Request, events: tuple[Event, ...] = ()) -> Decision:
        """See :meth:`.Store.admit`."""
        with self._lock:
            decision = self._state.admit(member, request, events, self._clock())
            self._notify()
            return decision

    def opened(self, member: str, session: str) -> Confirmed:
        """See :meth:`.Store.opened`."""
        with self._lock:
            confirmed = self._state.opened(member, session, self._clock())
            self._notify()
            return confirmed

    def evict(self, member: str, session: str) -> Evicted:
        """See :meth:`.Store.evict`."""
        with self._lock:
            evicted = self._state.evict(member, session, self._clock())
            self._notify()
            return evicted

    def report(self, member: str, events: tuple[Event, ...]) -> tuple[Message, ...]:
        """See :meth:`.Store.report`."""
        with self._lock:
            messages = self._state.report(member, events, self._clock())
            self._notify()
            return messages

    def issue(self, digest: str, ticket: Ticket) -> Issued:
        """See :meth:`.Store.issue`."""
        with self._lock:
            return self._state.issue(digest, ticket, self._clock())

    def redeem(self, digest: str) -> Ticket | None:
        """See :meth:`.Store.redeem`."""
        with self._lock:
            return self._state.redeem(digest, self._clock())

    def revoke(self, rules: tuple[Rule, ...]) -> Revoked:
        """See :meth:`.Store.revoke`."""
        with self._lock:
            revoked = self._state.revoke(rules, self._wall_clock())
            self._notify()
            return revoked

    def lift(self, kick: str, lifted_at: float) -> Revoked:
        """See :meth:`.Store.lift`."""
        with self._lock:
            revoked = self._state.lift(kick, lifted_at)
            self._notify()
            return revoked

    def rules(self, since: int) -> RulesPage:
        """See :meth:`.Store.rules`."""
        with self._lock:
            return self._state.rules(since)

    def behind(self, version: int) -> tuple[Member, ...]:
        """See :meth:`.Store.behind`."""
        with self._lock:
            return self._state.behind(version, self._clock())

    def borrow(self, member: str, name: str, max_age: float, turn_seconds: float) -> Copy:
        """See :meth:`.Store.borrow`."""
        with self._lock:
            return self._state.borrow(member, name, max_age, turn_seconds, self._clock())

    def keep(self, member: str, name: str, text: str | None, seconds: float, age: float) -> None:
        """See :meth:`.Store.keep`."""
        with self._lock:
            self._state.keep(member, name, text, seconds, age, self._clock())

    def sessions(self, member: str, after: str = "") -> SessionsPage:
        """See :meth:`.Store.sessions`."""
        with self._lock:
            return self._state.sessions(member, after, self._clock())

    def tell(self, member: str, session: str, code: int, reason: str) -> bool:
        """See :meth:`.Store.tell`."""
        with self._lock:
            told = self._state.tell(member, session, code, reason, self._clock())
            self._notify()
            return told

    def listen(self, member: str, seconds: float) -> bool:
        """See :meth:`.Store.listen`. Returns at once after :meth:`close`."""
        deadline = Deadline(seconds)
        with self._news:
            self._listeners += 1
            try:
                while not (news := self._state.news(member)) and not self._closed and not deadline.passed:
                    self._news.wait(max(deadline.remaining(), 0))
                return news
            except TimeoutError:
                return False
            finally:
                self._listeners -= 1

    @property
    def shortest_lease(self) -> float:
        """Of all members, in seconds; infinite if there are none."""
        with self._lock:
            return self._state.shortest_lease

    def was_stopped(self, seconds: float) -> bool:
        """Begin an epoch if nothing was answered for so long that leases would pass without any fault.

        Half a lease is too long. Members that live then have as much time as after a restart.
        """
        with self._lock:
            began = self._state.shortest_lease < 2 * seconds
            if began:
                self._state.begin_epoch(secrets.token_hex(8), self._clock())
            return began

    def news(self, member: str) -> bool:
        """Whether there may be news for a member since the last time; :meth:`listen` without waiting."""
        with self._lock:
            return self._state.news(member)

    @property
    def sizes(self) -> dict[str, int]:
        """How many things are remembered, by kind; for tests."""
        with self._lock:
            return dict(self._state.sizes)

    def _notify(self) -> None:
        """Have those who listen look. Needs the lock."""
        if self._listeners:
            self._news.notify_all()

    def close(self) -> None:
        """See :meth:`.Store.close`."""
        with self._lock:
            self._closed = True
            self._notify()
