"""The way to a store that several processes use."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ...exceptions import StoreUnavailable
from ...runtime.deadline import Clock
from ..limits import Limits
from ..membership import Beat, Failure, Issued, Member, Pulse, publications
from ..revocations import Rule
from ..store import Store
from ..stores.memory import MemoryStore
from ..tickets import Ticket
from ..values import Confirmed, Decision, Event, EventKind, Evicted, Outcome, Request, SessionRef
from .gate import Gate
from .holding import Holding
from .holdings import Holdings
from .known_rules import KnownRules, UntoldRules
from .outbox import Outbox
from .refusals import unavailable

__all__ = ["SharedLink"]

IN_STEP_SECONDS = 1.0
"""A process that has had no answer to a beat for so long admits nobody."""

_ASK_SECONDS = 1.5  # longer than any call of a store takes

R = TypeVar("R")
A = TypeVar("A", Decision, Confirmed, Evicted)


class SharedLink:
    """See :class:`.Link`. :class:`.Heartbeat` keeps it in step; other threads ask through it.

    :param store: the store; it opens nothing before the first call.
    :param member: who this process is.
    :param rules: the revocation rules that the process applies.
    :param limits: has the failed attempts that the process has counted.
    :param on_rules: called with rules that are new; ends the sessions that they concern, and returns a rule
        for the token of each.
    :param alone: whether the process decides by itself while the store is away. Otherwise it admits nobody.
    :param clock: seconds that never go backwards.
    """

    blocks = True

    def __init__(
        self,
        store: Store,
        member: Member,
        rules: KnownRules,
        limits: Limits,
        on_rules: Callable[[list[Rule]], list[Rule]],
        *,
        show_user: bool,
        alone: bool = False,
        clock: Clock = time.monotonic,
    ) -> None:
        self.member = member.id
        self.show_user = show_user
        self.store = store  # the shared one
        self.outbox = Outbox()
        self.wake = threading.Event()  # set when there is something to report, or to ask for
        self.began = threading.Event()  # set when it is in step for the first time
        self._self = member
        self._rules = rules
        self._limits = limits
        self._on_rules = on_rules
        self._may_be_alone = alone
        self._clock = clock
        self._gate = Gate(_ASK_SECONDS)
        self.holdings = Holdings(self.member)
        self._marks: dict[str, Event] = {}  # each operation on it is one of the dict
        self._learning = threading.Lock()  # held while rules are fetched and applied; guards _applied
        self._applied = 0
        self._untold = UntoldRules()
        # Assigned by the heartbeat's thread only.
        self._asked: Store = store  # which store the sessions' threads ask
        self._pulse: Pulse | None = None
        self._heard = -math.inf
        self._number = 1
        self._batch: tuple[Failure, ...] = ()
        self._failures_since = 0
        self._mismatches = 0
        self.has_news = False  # set by the thread that listens, and by those that ask
        self._own_epoch = ""  # of the store that it decides by while it is alone

    # Whether it is in step

    @property
    def is_in_step(self) -> bool:
        """Whether the process knows all revocation rules, and its store answers."""
        return self.seconds_away < IN_STEP_SECONDS

    @property
    def seconds_away(self) -> float:
        """Seconds since the last answer to a beat."""
        return self._clock() - self._heard

    @property
    def is_alone(self) -> bool:
        """Whether the process decides by itself because the store is away."""
        return self._asked is not self.store

    @property
    def may_report_opened(self) -> bool:
        """See :attr:`.Link.may_report_opened`. What the store has decided holds until the lease passes."""
        return not self.is_alone and self.seconds_away < min(IN_STEP_SECONDS, self._self.lease)

    @property
    def is_settled(self) -> bool:
        """Whether the store admits anybody."""
        return self._pulse is not None and self._pulse.settled

    @property
    def pulse(self) -> Pulse | None:
        """The last answer to a beat; None before the first."""
        return self._pulse

    def beat_soon(self) -> None:
        """Have the heartbeat ask at once. Any thread."""
        self.has_news = True
        self.wake.set()

    @property
    def members(self) -> int:
        """How many processes share the store, as far as this one knows."""
        return len(self._pulse.members or ()) if self._pulse else 1

    def check(self) -> None:
        """Make sure that the process may admit somebody. Any thread; does not block.

        :raises StateUnavailable: if it is out of step.
        """
        if not (self.is_in_step or self.is_alone):
            raise unavailable()

    # What sessions ask

    def admit(self, request: Request) -> Decision:
        """See :meth:`.Store.admit`. Brings what waits to be reported.

        :raises StateUnavailable: if the store is away.
        """
        self.check()
        decision, may_change = self._admit(request, 0.0)
        if may_change:
            decision, _ = self._admit(request, _ASK_SECONDS)
        if decision.outcome is Outcome.UNSETTLED and self.is_settled:
            self.beat_soon()
        return decision

    def _admit(self, request: Request, seconds: float) -> tuple[Decision, bool]:
        """Return what the store decides, and whether what another call carried meanwhile may change that.

        :param seconds: for how long to wait for such a call.
        """
        may_change = False

        def ask() -> Decision:
            nonlocal may_change
            with self.outbox.carried(seconds) as batch:  # within the gate: no publication comes between
                decision = self._asked.admit(self.member, request, batch.events)
            may_change = batch.is_behind and decision.outcome in (Outcome.FULL, Outcome.BUSY)
            if not may_change:
                self.holdings.note(request.session.id, decision)  # within the gate
            return decision

        return self._ask(ask), may_change

    def opened(self, session: str) -> Confirmed:
        """See :meth:`.Store.opened`. When it returns, the process has applied all rules of that moment.

        :raises StateUnavailable: if the store is away.
        """
        confirmed = self._ask(lambda: self._asked.opened(self.member, session))
        is_known = confirmed.known
        if is_known and not self.is_alone and confirmed.version > self._applied:
            try:
                is_known = self._learn()
            except StoreUnavailable as exc:
                raise unavailable(exc) from None
        if not is_known:  # the store has begun anew
            raise unavailable()
        return confirmed

    def evict(self, session: str) -> Evicted:
        """See :meth:`.Store.evict`.

        :raises StateUnavailable: if the store is away.
        """
        return self._ask(lambda: self._asked.evict(self.member, session))

    def _ask(self, ask: Callable[[], A]) -> A:
        try:
            with self._gate.passing():
                epoch = self.holdings.epoch
                answer = ask()
        except StoreUnavailable as exc:
            raise unavailable(exc) from None
        self.holdings.heed(answer.messages, epoch)
        return answer

    def issue(self, digest: str, ticket: Ticket) -> Issued:
        """See :meth:`.Store.issue`.

        :raises StateUnavailable: if the store is away.
        """
        return self._ask_of_tickets(lambda: self.store.issue(digest, ticket))

    def redeem(self, digest: str) -> Ticket | None:
        """See :meth:`.Store.redeem`.

        :raises StateUnavailable: if the store is away.
        """
        return self._ask_of_tickets(lambda: self.store.redeem(digest))

    def _ask_of_tickets(self, ask: Callable[[], R]) -> R:
        if not self.is_in_step:
            raise unavailable()
        try:
            return ask()
        except StoreUnavailable as exc:
            raise unavailable(exc) from None

    # What sessions report

    def post(self, event: Event) -> None:
        """See :meth:`.Link.post`."""
        if event.kind is EventKind.MARK:
            self._marks[event.session] = event
        elif event.kind is EventKind.UNMARK:
            self._marks.pop(event.session, None)
        self.outbox.post(event)

    def flush(self) -> None:
        """See :meth:`.Link.flush`."""
        self.wake.set()

    def keep(self, holding: Holding) -> None:
        """See :meth:`.Link.keep`."""
        self.holdings.keep(holding)

    def drop(self, holding: Holding) -> None:
        """See :meth:`.Link.drop`."""
        self.holdings.drop(holding)

    def look(self, sessions: tuple[SessionRef, ...]) -> bool:
        """See :meth:`.Link.look`."""
        return self.holdings.look(sessions)

    # What the heartbeat does; its thread only

    def report(self, seconds: float = _ASK_SECONDS) -> None:
        """Tell the store what waits to be reported by now. What comes meanwhile waits for another call.

        :param seconds: for how long to wait for a call that carries reports.
        :raises StoreUnavailable: if it is away; nothing is lost then.
        """
        left = len(self.outbox)
        while left > 0:
            with self._gate.passing(), self.outbox.carried(seconds) as batch:
                if not batch.events:
                    break  # another call has them, or is under way
                epoch = self.holdings.epoch
                messages = self._asked.report(self.member, batch.events)
            self.holdings.heed(messages, epoch)
            left -= len(batch.events)
        if self.is_alone:
            self._asked.beat(self.member, Beat(0, self._own_epoch, seen=self.holdings.seen))

    def beat(self) -> None:
        """Renew the lease, and do what the pulse says.

        :raises StoreUnavailable: if the store is away.
        """
        sent, calls, epoch = self._clock(), self._gate.entered, self.holdings.epoch
        is_idle = self._gate.is_empty and self.outbox.is_idle
        pulse = self.store.beat(self.member, self._next_beat())
        self._number += 1
        if pulse.known:
            self._batch = ()  # else the store has ignored it
        if not pulse.known or self.is_alone or not self._pulse or pulse.epoch != self._pulse.epoch:
            self._publish()
            return
        if is_idle and self.outbox.is_idle and calls == self._gate.entered:
            self._mismatches = 0 if pulse.held == self.holdings.counted else self._mismatches + 1
        if self._mismatches > 1:  # the first may be a session that was just being released
            self._publish()
            return
        self._heed(pulse, sent, epoch)

    def _next_beat(self) -> Beat:
        # A beat without an answer is repeated with the same number: its failures count once.
        self._batch = self._batch or self._limits.failures_to_tell(self.members)
        pulse = self._pulse
        return Beat(
            self._number,
            pulse.epoch if pulse else "",
            self._applied,
            self.holdings.seen,
            pulse.roster if pulse else 0,
            self._batch,
            self._failures_since,
        )

    def _heed(self, pulse: Pulse, sent: float, epoch: int) -> None:
        if pulse.members is None and self._pulse:
            pulse = pulse._replace(members=self._pulse.members)
        self._pulse = pulse
        self._limits.learn_failures(pulse.failures)
        self._failures_since = pulse.failures_version
        self.holdings.heed(pulse.messages, epoch)
        is_new = pulse.version > self._applied
        if (is_new or self._untold) and not self._learn():
            return
        if is_new:
            self.beat_soon()  # a kick waits until this process acknowledges the rules
        self._heard = sent
        self.began.set()

    def _publish(self) -> None:
        """Tell the store all that the process holds, and have sessions ask that store from then on."""
        knew = self._pulse.members or () if self._pulse else ()
        sent = self._clock()
        with self._learning:
            self._applied = 0
        pulse = self._published(self.store, self._self, knew)
        self._failures_since = self._mismatches = 0
        self._heed(pulse, sent, self.holdings.epoch)

    def _published(self, store: Store, member: Member, knew: tuple[str, ...]) -> Pulse:
        with self._gate.alone():
            self.holdings.begin_epoch()  # within the gate: no call of the epoch before is answered after it
            self.outbox.clear()
            pulse: Pulse | None = None
            try:
                for part in publications(member, self.holdings.held(), list(self._rules), knew):
                    pulse = store.publish(part)
            finally:  # a publication without an answer may have happened
                for event in list(self._marks.values()):
                    self.outbox.post(event)
            self._asked = store
        assert pulse is not None
        return pulse

    def be_alone(self) -> None:
        """Have the process decide by itself, if it is to, because the store is away."""
        if self._may_be_alone and not self.is_alone:
            own = self._published(MemoryStore(self._clock), self._self._replace(lease=math.inf), ())
            self._own_epoch = own.epoch

    def leave(self) -> None:
        """Give up all that the process holds, and close the store. Blocks for the store's timeout."""
        try:
            self.report()
            if (beat := self._next_beat()).failures:
                self.store.beat(self.member, beat)
            self.store.leave(self.member)
        except StoreUnavailable:
            pass  # the lease passes
        finally:
            self.store.close()

    # Revocation rules

    def _learn(self) -> bool:
        """Fetch the rules that are new, and apply them; return False if another epoch has begun."""
        with self._learning:
            while True:
                page = self.store.rules(self._applied)
                if self._pulse and page.epoch != self._pulse.epoch:
                    return False  # the next beat begins anew
                self.apply(list(page.rules))
                self._applied = page.version
                if not page.more:
                    return True

    def apply(self, rules: list[Rule], *, is_away: bool = False) -> None:
        """Refuse tokens by these rules from now on, and end their sessions. Any thread.

        Then tell the store of the tokens of those sessions. If it has no room, it is told again with the next
        beat.

        :param is_away: whether the store could not be told of the rules. It is told when it answers again.
        :raises StoreUnavailable: if the store cannot be told of the tokens now.
        """
        if is_away:
            self._untold.add(rules)
        if (fresh := self._rules.learn(rules)) and (more := self._on_rules(fresh)):
            self._rules.learn(more)
            self._untold.add(more)
        if not is_away:
            self._untold.tell(self.store.revoke)
