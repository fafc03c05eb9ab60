"""What one session holds of the shared state: its slots, and its claim on the console."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from ...exceptions import ConsoleBusy, TransportClosed
from ...runtime.deadline import Deadline
from ...runtime.logs import get_logger
from ..console_policies import Policy
from ..values import (
    NO_LIMITS,
    Confirmed,
    Decision,
    Event,
    EventKind,
    Evicted,
    Held,
    Message,
    MessageKind,
    Outcome,
    Request,
    SessionRef,
    SharedSession,
    SlotLimits,
    Stage,
)
from .held_session import HeldSession
from .refusals import end_of, not_admitted, taken_over

__all__ = ["TAKEN_OVER", "Holding", "Link", "Mark"]

logger = get_logger("wsproxy.state")

TAKEN_OVER = 4410
"""Close code for a client whose console another one took over."""

_MOMENT = 0.5  # seconds in which another process finds out that its client has left


class Link(Protocol):
    """What a holding needs of the process's way to the store. Any thread may use it.

    The operations are those of :class:`.Store`, for the member that the process is.

    :ivar member: id of that member.
    :ivar show_user: whether a client may learn the user that has or took its console.
    :ivar blocks: whether the store is elsewhere, so that asking it takes time.
    """

    member: str
    show_user: bool
    blocks: bool

    @property
    def may_report_opened(self) -> bool:
        """Whether a session for which the store has decided all may report that it is open, and not ask.

        So it is while the process is in step, and its lease cannot have passed. Never blocks.
        """
        ...

    def admit(self, request: Request) -> Decision: ...

    def opened(self, session: str) -> Confirmed: ...

    def evict(self, session: str) -> Evicted: ...

    def post(self, event: Event) -> None:
        """Queue a report. Never blocks."""
        ...

    def flush(self) -> None:
        """Have the queued reports sent soon; at once if the store is in this process.

        Never blocks. The caller holds no lock that a session needs, as this may end sessions.
        """
        ...

    def keep(self, holding: Holding) -> None:
        """Have the holding get its messages, and count in what the process publishes."""
        ...

    def drop(self, holding: Holding) -> None:
        """Forget a holding. Idempotent."""
        ...

    def look(self, sessions: tuple[SessionRef, ...]) -> bool:
        """Check those sessions that are of this process; return whether one of them has lost its client."""
        ...


class Holding:
    """What one session holds, from its request to the end of both legs.

    The session's own thread uses it, except for the methods that say that any thread may call them.

    :param link: the way to the store; None if nothing is shared, counted or arbitrated. Then no method does
        anything.
    :param policy: the rule for the console.
    :param limits: the limits that the settings set for sessions.
    :param hit: called with the name of the limit that refuses the session.
    """

    def __init__(
        self,
        link: Link | None,
        session: HeldSession,
        shared: SharedSession,
        policy: Policy = Policy.PASSTHROUGH,
        limits: SlotLimits = NO_LIMITS,
        hit: Callable[[str], None] = lambda limit: None,
    ) -> None:
        self.policy = policy
        self.shared = shared
        self._link = link
        self._session = session
        self._limits = limits
        self._hit = hit
        self._free = threading.Event() if link else None
        # Guards the attributes below. No other lock is taken meanwhile, but the queue's.
        self._lock = threading.Lock()
        self._stage = Stage.WAITING
        self._held = False  # whether the store may know of it
        self._counts = False  # whether the store has answered that the session has its slots
        self._refused = False  # whether it has answered that the session has nothing
        self._decided = False  # whether it has nothing to decide when the session opens
        self._ending = False
        self._given_up = False
        self._marked = False

    @property
    def id(self) -> str:
        return self.shared.id

    @property
    def preserves_session(self) -> bool:
        """Whether KubeVirt must leave the console to a client that has it, even one that is not ours."""
        return self.policy is Policy.REFUSE

    @property
    def asks_first(self) -> bool:
        """Whether the first dial must not drop another client, so that KubeVirt reports a console in use."""
        return self.policy is not Policy.PASSTHROUGH

    # Admission

    def admit(self, deadline: Deadline, before_wait: Callable[[], None]) -> None:
        """Take the session's slots, and claim the console. When this returns, the session may dial it.

        Blocks for the store's answers. It also blocks while a session that is in the way is ending, until
        the deadline at most.

        :param before_wait: called before this waits for another session, or for a store elsewhere; may be
            called more than once.
        :raises Refused: if the session may not have its slots or its console, or the store is away.
        :raises TransportClosed: if the session itself begins to end while it waits.
        """
        link = self._link
        if link is None:
            return
        with self._lock:
            self._held, self._ending, self._refused = True, False, False
        link.keep(self)
        if link.blocks:
            before_wait()
        try:
            self._ask_until_admitted(link, deadline, before_wait)
        except BaseException:
            self.released()
            raise

    def _ask_until_admitted(self, link: Link, deadline: Deadline, before_wait: Callable[[], None]) -> None:
        moment, may_wait = Deadline(_MOMENT), True
        assert self._free is not None
        while True:
            self._free.clear()
            if self._given_up:  # if it is given up from here on, the event is set
                raise TransportClosed("the opening was given up")
            decision = link.admit(Request(self.shared, self.policy, self._limits, may_wait))
            self.note(decision)
            if decision.outcome is Outcome.ADMITTED:
                return
            if decision.outcome is Outcome.FULL:
                self._hit(decision.limit)
            if decision.outcome is not Outcome.WAIT:
                raise not_admitted(decision, link.show_user)
            before_wait()
            if not link.look(decision.in_way):  # else it has reported that, which made room
                others = any(ref.member != link.member for ref in decision.in_way)
                may_wait = self._waits(deadline if decision.ending else moment if others else None)
            if self._session.is_ending:
                raise TransportClosed("the session no longer wants the console")

    def note(self, decision: Decision) -> None:
        """Take note of what the store has decided, before the next publication. Idempotent."""
        with self._lock:
            outcome = decision.outcome
            if outcome is Outcome.ADMITTED and self._stage is Stage.WAITING:
                self._stage, self._decided = Stage.DIALLING, decision.decided
            self._counts = outcome is Outcome.ADMITTED or (outcome is Outcome.WAIT and not decision.limit)
            self._refused = outcome in (Outcome.FULL, Outcome.BUSY)

    def _waits(self, deadline: Deadline | None) -> bool:
        """Wait for news; return False if there was none in time, or there is nothing to wait for."""
        assert self._free is not None
        try:
            return deadline is not None and self._free.wait(deadline.remaining())
        except TimeoutError:
            return False

    def give_up_waiting(self) -> None:
        """End a wait of :meth:`admit`, because the session is ending. Any thread, never blocks."""
        if self._free:
            self._free.set()

    # The dial

    def evict(self) -> bool:
        """KubeVirt reports that the console is in use: end the session that this one takes over.

        Blocks for the store's answer.

        :returns: whether a session or an opening of ours was the reason, so that dialling again makes sense.
        """
        self._decided = False
        return self._link is not None and self.asks_first and self._link.evict(self.id).again

    def opened(self) -> None:
        """Take the console, which is open; the session that had it ends.

        Blocks for the store's answer, unless it had decided all when it admitted the session. Afterwards the
        token is checked again: this process knows every revocation rule that it has acknowledged.

        :raises ConsoleBusy: if another session has got the console meanwhile.
        :raises StateUnavailable: if the store is away.
        """
        link = self._link
        if link is None:
            return
        if self._reports_opened(link):
            link.flush()
            return
        confirmed = link.opened(self.id)
        if not confirmed.admitted:
            raise ConsoleBusy("another client has got this console meanwhile")
        with self._lock:
            self._stage = Stage.OPEN

    def _reports_opened(self, link: Link) -> bool:
        """Take the console without asking, if that is possible; return whether it was.

        A publication first calls :meth:`begin_epoch`. So either it names this session as an open one, or the
        store is asked.
        """
        with self._lock:
            if not self._decided or self._ending or not link.may_report_opened:
                return False
            self._stage = Stage.OPEN
            link.post(Event(EventKind.OPENED, self.id))
        return True

    def mark(self) -> Mark | None:
        """Leave a mark, because KubeVirt may still open the console for this session.

        The mark stays when the session is released. Any thread, never blocks. The caller may hold a lock,
        and afterwards calls :meth:`Mark.tell` or :meth:`given_up` without it.

        :returns: None with passthrough.
        """
        if self._link is None or not self.asks_first:
            return None
        return Mark(self._link, self.shared)

    # The end

    def ending(self) -> None:
        """Report that the session has begun to end. Any thread, never blocks, idempotent."""
        self._report(EventKind.ENDING)

    def given_up(self) -> None:
        """Report that the opening was given up: others may have the console. As :meth:`ending`."""
        self._report(EventKind.GIVEN_UP)
        self.give_up_waiting()

    def released(self) -> None:
        """Report that both legs are closed: the session holds nothing. Any thread, as :meth:`ending`."""
        self._report(EventKind.RELEASED)

    def _report(self, kind: EventKind) -> None:
        link = self._link
        if link is None:
            return
        with self._lock:
            self._given_up |= kind is EventKind.GIVEN_UP
            if not self._held or (self._ending and kind is EventKind.ENDING):
                return
            self._ending = True
            if kind is EventKind.RELEASED:
                self._held = self._counts = False
                link.drop(self)
                if self._refused:
                    return
            link.post(Event(kind, self.id))
        link.flush()

    # What the process does with it

    @property
    def counts(self) -> bool:
        """Whether the store counts the session, as far as it has answered. Any thread."""
        return self._counts

    def begin_epoch(self) -> None:
        """The store is about to be told anew what the process holds. Any thread, never blocks.

        Nobody expects anything. A session that waits holds nothing any more, and asks again at once. If the
        store were told of it, it would count above a limit, and would be admitted.
        """
        with self._lock:
            self._decided = False
            if self._stage is Stage.WAITING:
                self._counts = False
        self._session.expect_takeover(None)
        if not self._counts:
            self.give_up_waiting()

    def held(self) -> Held:
        """Return what the session holds, for a publication. Any thread."""
        with self._lock:
            policy = Policy.PASSTHROUGH if self._given_up else self.policy
            return Held(self.shared, self._stage, policy, self._ending)

    def has_left(self) -> bool:
        """Check whether the client has left; if so, the session reports that it is ending. Any thread."""
        return self._session.note_departure()

    def heed(self, message: Message) -> None:
        """Do what the store says. Any thread that holds no lock of a session; never blocks."""
        assert self._link is not None
        self._decided = False  # somebody else is concerned: a call tells them at once
        kind = message.kind
        if kind is MessageKind.FREE:
            self.give_up_waiting()
        elif kind is MessageKind.EXPECT:
            self._session.expect_takeover(self._reason(message))
        elif kind is MessageKind.KEEP:
            self._session.expect_takeover(None)
        elif kind is MessageKind.LOOK:
            self.has_left()
        elif kind is MessageKind.LOST:
            self._lose(message)
        elif kind is MessageKind.END:
            self._session.end(*end_of(message))

    def _lose(self, message: Message) -> None:
        with self._lock:
            self._given_up = True  # it has no console any more, whoever asks
        self._session.end(TAKEN_OVER, self._reason(message))
        console = self.shared.console
        logger.info(
            "session %s lost the %s console of %s/%s to another session",
            self.id,
            console.subresource,
            console.namespace,
            console.vmi,
        )

    def _reason(self, message: Message) -> str:
        assert self._link is not None
        return taken_over(message.by, self._link.show_user)


class Mark:
    """Stands for an opening that was given up, to which the console's holder may still lose the console.

    A mark keeps no client from the console.
    """

    def __init__(self, link: Link, session: SharedSession) -> None:
        self._link = link
        self.session = session
        link.post(self.event)

    @property
    def event(self) -> Event:
        """What reports it."""
        return Event(EventKind.MARK, self.session.id, self.session.console, self.session.user)

    def tell(self) -> None:
        """Make sure that the store learns of the mark. As :meth:`Link.flush`."""
        self._link.flush()

    def remove(self) -> None:
        """Forget the opening, as KubeVirt will not open its console. Any thread, idempotent, never blocks."""
        self._link.post(Event(EventKind.UNMARK, self.session.id))
        self._link.flush()
