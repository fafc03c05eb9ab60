"""Whatever is asked of it, in whatever order, a Redis decides as the store in memory does."""

from __future__ import annotations

import os
import random
import unittest
from collections.abc import Callable

from tests.integration.redis_server import REDIS_SERVER, RedisServer
from tests.integration.redis_twin import TwinHarness
from tests.state.conformance.case import TestMember, session
from tests.state.conformance.tickets import ticket
from wsproxy.state.console_policies import Policy
from wsproxy.state.membership import Failure
from wsproxy.state.revocations import Match, Rule
from wsproxy.state.store import Store
from wsproxy.state.values import Console, Event, EventKind, Held, SharedSession, SlotLimits, Stage, User

__all__ = ["LikeMemoryTest"]

_RUNS = int(os.environ.get("WSPROXY_TEST_RUNS", "60"))
_STEPS = 120
_USERS: tuple[User, ...] = ("alice", "bob", 5, "5")
_LIMITS = (SlotLimits(), SlotLimits(2, 1, 1), SlotLimits(6, 2, 3), SlotLimits(0, 2, 0), SlotLimits(0, 0, 1))


class Walk:
    """Asks at random; small numbers of names make them meet."""

    def __init__(self, harness: TwinHarness, seed: int) -> None:
        self.harness = harness
        self.random = random.Random(seed)
        self.members = [TestMember(harness, name, lease) for name, lease in (("a", 15), ("b", 15), ("c", 4))]
        self.limits = self.random.choice(_LIMITS)
        self.versions = [0, 0]
        self.steps: tuple[tuple[Callable[[], object], int], ...] = (
            (self.admit, 30), (self.opened, 16), (self.report, 16), (self.evict, 4), (self.mark, 5),
            (self.publish, 6), (self.beat, 12), (self.time, 4), (self.leave, 1), (self.restart, 1),
            (self.tell, 2), (self.lists, 3), (self.revoke, 3), (self.lift, 1), (self.tickets, 3),
            (self.copies, 6),
        )  # fmt: skip

    @property
    def store(self) -> Store:
        return self.harness.store

    def run(self) -> None:
        for member in self.members:
            member.publish()
        steps, weights = zip(*self.steps, strict=True)
        for step in self.random.choices(steps, weights, k=_STEPS):
            step()

    def member(self) -> TestMember:
        return self.random.choice(self.members)

    def session(self) -> SharedSession:
        pick = self.random.choice
        user, network = pick(_USERS), pick(("n1", "n2"))
        may = self.random.random() < 0.9
        return session(self.id(), user, pick(("one", "two")), network=network, may_take_over=may)

    def id(self) -> str:
        return f"s{self.random.randrange(9)}"

    def admit(self) -> None:
        events = tuple(self.event() for _ in range(self.random.choice((0, 0, 1, 3))))
        policy = self.random.choice(("takeover", "takeover", "refuse", "passthrough"))
        limits = self.limits if self.random.random() < 0.9 else self.random.choice(_LIMITS)
        may_wait = self.random.random() < 0.5
        self.member().admit(self.session(), policy, limits, may_wait=may_wait, events=events)

    def event(self) -> Event:
        kinds = (EventKind.RELEASED,) * 3 + (EventKind.OPENED,) * 3 + (EventKind.ENDING, EventKind.GIVEN_UP)
        return Event(self.random.choice(kinds), self.id())

    def report(self) -> None:
        self.member().report_all(*(self.event() for _ in range(self.random.randrange(3))))

    def mark(self) -> None:
        id, by = self.id(), self.random.choice((*_USERS, None))
        mark = Event(EventKind.MARK, id, Console("lab-1", "one" if id < "s5" else "two", "vnc"), by)
        self.member().report_all(mark, Event(EventKind.UNMARK, self.id()))

    def opened(self) -> None:
        self.member().opened(self.id())

    def evict(self) -> None:
        self.member().evict(self.id())

    def publish(self) -> None:
        member, parts = self.member(), self.random.randrange(1, 4)
        knew = tuple(one.id for one in self.members if self.random.random() < 0.4)
        start = self.random.choice((0, 0, 0, 1))
        for part in range(start, parts):
            held = self.held(member)
            rules = tuple(self.rule() for _ in range(self.random.randrange(2)))
            member.publish(*held, rules=rules, knew=knew, part=part, last=part == parts - 1)
            if self.random.random() < 0.3:
                self.admit()

    def held(self, member: TestMember) -> tuple[Held, ...]:
        """Return what a member may say. An open session does not dial again."""
        there = {one.session.id: one.stage for one in self.store.sessions(member.id).sessions}
        pick, found = self.random.choice, {}
        for _ in range(self.random.randrange(4)):
            one, stage = self.session(), pick(tuple(Stage))
            stage = Stage.OPEN if there.get(one.id) is Stage.OPEN else stage
            found[one.id] = Held(one, stage, pick(tuple(Policy)), self.random.random() < 0.2)
        return tuple(found.values())

    def beat(self) -> None:
        member, since = self.member(), self.random.choice(self.versions)
        failures = tuple(
            Failure(f"n{self.random.randrange(5)}", self.random.choice((0.5, 30.0, 99.0)))
            for _ in range(self.random.choice((0, 0, 3)))
        )
        roster = self.random.randrange(8)
        pulse = member.beat(applied=since, roster=roster, failures=failures, since=since)
        self.versions = [pulse.version, pulse.failures_version]

    def time(self) -> None:
        self.harness.advance(self.random.choice((0.25, 0.5, 1.0, 3.0, 5.0, 16.0, 31.0)))
        self.store.members()

    def leave(self) -> None:
        self.store.leave(self.member().id)

    def restart(self) -> None:
        self.harness.restart(data=self.random.random() < 0.6)

    def tell(self) -> None:
        self.store.tell(self.member().id, self.id(), 4499, 'kicked "ü" \n')

    def lists(self) -> None:
        self.store.sessions(self.member().id, self.random.choice(("", "s4")))
        self.store.members()
        self.store.behind(self.versions[0])
        self.store.rules(self.random.choice((0, self.versions[0])))

    def rule(self) -> Rule:
        number, kick = self.random.randrange(6), self.random.randrange(3)
        made, until = 1.7e9 + self.random.random(), self.random.choice((1.7e9 + 9000.0625, float("inf")))
        if self.random.random() < 0.1:
            return Rule.lift(f"k{kick}", made, until)
        return Rule(f"r{number}", f"k{kick}", made, until, Match(user=f"u{kick}", digest=str(number)), "ü")

    def revoke(self) -> None:
        self.store.revoke(tuple(self.rule() for _ in range(self.random.randrange(4))))

    def lift(self) -> None:
        self.store.lift(f"k{self.random.randrange(4)}", 1.7e9 + self.random.random())

    def tickets(self) -> None:
        for _ in range(self.random.randrange(8)):
            self.store.issue(f"{self.random.randrange(40):02x}", ticket(self.random.choice(_USERS)))
        self.store.redeem(f"{self.random.randrange(40):02x}")

    def copies(self) -> None:
        pick = self.random.choice
        for _ in range(self.random.randrange(5)):
            member, name = self.member().id, f"n{self.random.randrange(4)}"
            if self.random.random() < 0.6:
                self.store.borrow(member, name, pick((-1.0, 1.0, 20.0)), pick((2.5, 100.0)))
            else:
                text = pick((None, "a", "b/c"))
                self.store.keep(member, name, text, pick((3.0, 40.0)), pick((0.0, 2.5)))


@unittest.skipUnless(REDIS_SERVER, "no redis-server")
class LikeMemoryTest(unittest.TestCase):
    """WSPROXY_TEST_RUNS says how many walks; each begins with an empty Redis."""

    @classmethod
    def setUpClass(cls) -> None:
        TwinHarness.server = RedisServer()
        cls.addClassCleanup(TwinHarness.server.close)

    def test_walks(self) -> None:
        for seed in range(_RUNS):
            with self.subTest(seed=seed):
                self.walk(seed)

    def walk(self, seed: int) -> None:
        harness = TwinHarness()
        try:
            walk = Walk(harness, seed)
            walk.run()
            for member in walk.members:
                harness.store.leave(member.id)
            left = {kind: size for kind, size in harness.sizes().items() if size}
            self.assertLessEqual(left.keys(), {"tickets", "rules", "failures", "copies"}, left)
        finally:
            harness.close()
