"""The store in a real redis-server does what every store must."""

from __future__ import annotations

import unittest

from hypothesis import settings

from tests.integration.redis_server import REDIS_SERVER, RedisHarness, RedisServer
from tests.property.profile import few
from tests.property.store_machine import StoreMachine
from tests.state.conformance import conformance
from tests.state.conformance.case import LEASE, TestMember
from tests.state.conformance.tickets import ticket

__all__ = ["ClockTest", "StoreTest"]


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
