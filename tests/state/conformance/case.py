"""A store under test, its members, and the time."""

from __future__ import annotations

import sys
import threading
import unittest
from collections.abc import Callable
from itertools import count
from typing import ClassVar, Protocol

from wsproxy.state.console_policies import Policy
from wsproxy.state.membership import Beat, Failure, Member, Publication, Pulse
from wsproxy.state.revocations import Rule
from wsproxy.state.store import Store
from wsproxy.state.values import (
    NO_LIMITS,
    Confirmed,
    Console,
    Decision,
    Event,
    EventKind,
    Held,
    Message,
    MessageKind,
    Outcome,
    Request,
    SharedSession,
    SlotLimits,
    Stage,
    User,
)

__all__ = ["LEASE", "Harness", "StoreCase", "TestMember", "at_once", "session"]

LEASE = 15.0
_STEP = 0.5  # seconds between the beats of a member


class Harness(Protocol):
    """A store whose clock the test has.

    A new one is settled, has no members, and says that it is 1,000 s and that UNIX time is 1,700,000,000 s.
    """

    store: Store

    def advance(self, seconds: float) -> None:
        """Let time pass: the store's own, and UNIX time."""
        ...

    def restart(self, *, data: bool) -> None:
        """Have the store start again; ``store`` may be another object then.

        :param data: whether it still has its data. A store that never keeps any ignores this.
        """
        ...

    def sizes(self) -> dict[str, int]:
        """Return how many things the store remembers, by kind: tickets, rules, failures, copies, and others.

        When all members have left, only these four may be left.
        """
        ...

    def close(self) -> None: ...


def session(
    id: str,
    user: User = "alice",
    vmi: str = "ubuntu",
    *,
    network: str = "198.51.100.7",
    token_id: str | None = None,
    may_take_over: bool = True,
) -> SharedSession:
    """Return a session with the display of a VMI."""
    token = f"token-of-{user}" if token_id is None else token_id
    console = Console("lab-1", vmi, "vnc")
    return SharedSession(id, user, console, network, network, token, may_take_over, 1.5, 2e9)


def at_once(target: Callable[[int], None], threads: int = 8) -> None:
    """Call a function in several threads at once, with their numbers; they interrupt each other a lot."""
    begin = threading.Barrier(threads)

    def run(number: int) -> None:
        begin.wait()
        target(number)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    finally:
        sys.setswitchinterval(interval)


class TestMember:
    """A process of the test.

    :ivar messages: all that it was told, once each.
    """

    __test__ = False  # for pytest

    def __init__(self, harness: Harness, name: str, lease: float = LEASE) -> None:
        self._harness = harness
        self.member = Member(f"id-of-{name}", name, lease)
        self.id = self.member.id
        self.epoch = ""
        self.messages: list[Message] = []
        self._seen = 0
        self._numbers = count(1)

    @property
    def store(self) -> Store:
        return self._harness.store

    def publish(
        self,
        *held: Held,
        rules: tuple[Rule, ...] = (),
        knew: tuple[str, ...] = (),
        part: int = 0,
        last: bool = True,
    ) -> Pulse:
        """Publish what it holds, or a part of that."""
        return self._note_pulse(self.store.publish(Publication(self.member, part, last, held, rules, knew)))

    def beat(
        self, *, applied: int = 0, roster: int = 0, failures: tuple[Failure, ...] = (), since: int = 0
    ) -> Pulse:
        """Beat, and acknowledge the messages that it has been told."""
        beat = Beat(next(self._numbers), self.epoch, applied, self._seen, roster, failures, since)
        return self._note_pulse(self.store.beat(self.id, beat))

    def _note_pulse(self, pulse: Pulse) -> Pulse:
        if pulse.epoch != self.epoch:
            self.epoch, self._seen = pulse.epoch, 0
        self._note(pulse.messages)
        return pulse

    def _note(self, messages: tuple[Message, ...]) -> None:
        fresh = [message for message in messages if message.number > self._seen]
        self._seen = max((message.number for message in fresh), default=self._seen)
        self.messages += fresh

    def told(self) -> list[tuple[MessageKind, str]]:
        """Beat, and return what it was told since the last call: kinds and sessions."""
        self.beat()
        messages, self.messages = self.messages, []
        return [(message.kind, message.session) for message in messages]

    def admit(
        self,
        wanted: SharedSession,
        policy: str = "passthrough",
        limits: SlotLimits = NO_LIMITS,
        *,
        may_wait: bool = False,
        events: tuple[Event, ...] = (),
    ) -> Decision:
        """Ask for a session; by default for the last time."""
        request = Request(wanted, Policy(policy), limits, may_wait)
        decision = self.store.admit(self.id, request, events)
        self._note(decision.messages)
        return decision

    def opened(self, id: str) -> Confirmed:
        confirmed = self.store.opened(self.id, id)
        self._note(confirmed.messages)
        return confirmed

    def open(
        self, wanted: SharedSession, policy: str = "passthrough", limits: SlotLimits = NO_LIMITS
    ) -> None:
        """Open a session, which must be possible."""
        decision = self.admit(wanted, policy, limits)
        assert decision.outcome is Outcome.ADMITTED, decision
        assert self.opened(wanted.id).admitted

    def evict(self, id: str) -> bool:
        evicted = self.store.evict(self.id, id)
        self._note(evicted.messages)
        return evicted.again

    def report(self, kind: EventKind, *ids: str) -> None:
        """Report the same of some sessions."""
        self.report_all(*(Event(kind, id) for id in ids))

    def report_all(self, *events: Event) -> None:
        self._note(self.store.report(self.id, events))

    def ending(self, *ids: str) -> None:
        self.report(EventKind.ENDING, *ids)

    def given_up(self, *ids: str) -> None:
        self.report(EventKind.GIVEN_UP, *ids)

    def released(self, *ids: str) -> None:
        self.report(EventKind.RELEASED, *ids)

    def held(self) -> list[tuple[str, Stage, bool]]:
        """Return what the store knows of its sessions."""
        found = self.store.sessions(self.id).sessions
        return [(one.session.id, one.stage, one.ending) for one in found]


class StoreCase(unittest.TestCase):
    """A test with a store, and two members ``a`` and ``b`` that beat while time passes."""

    make: ClassVar[type[Harness]]

    def setUp(self) -> None:
        self.harness = self.make()
        self.addCleanup(self.harness.close)
        self.alive: list[TestMember] = []
        self.a, self.b = self.join("a"), self.join("b")

    @property
    def store(self) -> Store:
        return self.harness.store

    def join(self, name: str, lease: float = LEASE) -> TestMember:
        """Return a new member that holds nothing, and beats from now on."""
        member = TestMember(self.harness, name, lease)
        member.publish()
        self.alive.append(member)
        return member

    def dies(self, member: TestMember) -> None:
        """Have a member never beat again."""
        self.alive.remove(member)

    def passes(self, seconds: float) -> None:
        """Let time pass while the members beat."""
        while seconds > 0:
            self.harness.advance(min(_STEP, seconds))
            seconds -= _STEP
            for member in self.alive:
                member.beat()

    def assert_full(self, decision: Decision, limit: str) -> None:
        self.assertEqual((decision.outcome, decision.limit), (Outcome.FULL, limit))

    def assert_outcome(self, outcome: Outcome, decision: Decision) -> None:
        self.assertIs(decision.outcome, outcome, decision)
