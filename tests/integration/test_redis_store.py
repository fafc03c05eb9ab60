"""The store in a real redis-server does what every store must."""

from __future__ import annotations

import unittest

from hypothesis import settings

from tests.integration.redis_server import REDIS_SERVER, RedisHarness, RedisServer
from tests.property.profile import few
from tests.property.store_machine import StoreMachine
from tests.state.conformance import conformance
from tests.state.conformance.case import LEASE, TestMember, session
from tests.state.conformance.tickets import ticket
from wsproxy.state.values import Stage

__all__ = ["ClockTest", "EarlyTest", "StoreTest"]


class Harness(RedisHarness):
    """With the server of the test that runs."""


class _OwnServer(unittest.TestSuite):
    """Tests that have one server together."""

    def run(self, result: unittest.TestResult, debug: bool = False) -> unittest.TestResult:
        Harness.server = RedisServer()
        try:
            return super().run(result, debug)
        finally:
            Harness.server.close()


class Machine(StoreMachine):
    make = Harness


@unittest.skipUnless(REDIS_SERVER, "no redis-server")
class ClockTest(unittest.TestCase):
    def test_back(self) -> None:
        """If somebody sets the clock of the host back, leases and tickets end as they would have."""
        Harness.server = RedisServer()
        self.addCleanup(Harness.server.close)
        harness = Harness()
        self.addCleanup(harness.close)
        member = TestMember(harness, "a")
        member.publish()
        harness.store.issue("11", ticket())
        harness.advance(-3600)
        self.assertEqual(harness.store.issue("11", ticket()).seconds, 30.0)
        self.assertEqual(harness.store.members(), (member.member,))
        harness.advance(LEASE)
        self.assertEqual(harness.store.members(), ())
        harness.advance(LEASE)
        self.assertIsNone(harness.store.redeem("11"))


@unittest.skipUnless(REDIS_SERVER, "no redis-server")
class EarlyTest(unittest.TestCase):
    """What a script answers before Redis has made its functions: then it does not write the counters."""

    def setUp(self) -> None:
        Harness.server = RedisServer()
        self.addCleanup(Harness.server.close)
        self.harness = Harness()
        self.addCleanup(self.harness.close)
        self.member, self.other = TestMember(self.harness, "a"), TestMember(self.harness, "b")
        self.member.publish()
        self.other.publish()

    def is_early(self, session_id: str) -> bool:
        """Tell the store that a session is open, and return whether it answered early."""
        with Harness.server.client() as client:
            client.config_resetstat()
            self.assertTrue(self.member.opened(session_id).admitted)
            return "cmdstat_set" not in client.info("commandstats")

    def test_opened(self) -> None:
        """So it is if KubeVirt decides on the console, or if nobody else has it or wants it."""
        for number, policy in enumerate(("passthrough", "takeover", "refuse")):
            self.member.admit(session(f"s{number}", vmi=f"vm-{number}"), policy)
            with self.subTest(policy):
                self.assertTrue(self.is_early(f"s{number}"))
                self.assertFalse(self.is_early(f"s{number}"), "it opens only once")
        stages = [one.stage for one in self.harness.store.sessions(self.member.id).sessions]
        self.assertEqual(stages, [Stage.OPEN] * 3)

    def test_others(self) -> None:
        """It is not if another session has the console, or waits for it."""
        self.member.admit(session("s1"), "takeover")
        self.member.opened("s1")
        self.member.admit(session("s2", user="bob"), "takeover")
        self.assertFalse(self.is_early("s2"))
        self.member.admit(session("s3", vmi="two"), "takeover")
        self.other.admit(session("s4", user="bob", vmi="two"), "takeover", may_wait=True)
        self.assertFalse(self.is_early("s3"))

    def test_something_to_do(self) -> None:
        """It is not if another member's lease has passed, or if there is a message."""
        self.member.admit(session("s1"), "passthrough")
        self.harness.advance(LEASE - 1)
        self.member.beat()
        self.harness.advance(1.5)
        self.assertFalse(self.is_early("s1"))
        self.member.admit(session("s2"), "passthrough")
        self.harness.store.tell(self.member.id, "s1", 4499, "kicked")
        self.assertFalse(self.is_early("s2"))


@unittest.skipUnless(REDIS_SERVER, "no redis-server")
class StoreTest(Machine.TestCase):  # type: ignore[misc, valid-type]
    """The store against a model, with members that crash, restarts, and a clock that leaps."""

    settings = settings(few, max_examples=60, stateful_step_count=50, deadline=None)

    @classmethod
    def setUpClass(cls) -> None:
        Harness.server = RedisServer()
        cls.addClassCleanup(Harness.server.close)


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    if REDIS_SERVER is None:
        return tests
    return unittest.TestSuite([tests, _OwnServer([conformance(loader, Harness)])])
