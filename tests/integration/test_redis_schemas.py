"""Two versions of the program whose Redis has another schema, and in which of the two they decide."""

from __future__ import annotations

import unittest
from typing import Any, ClassVar

from tests.integration.redis_server import CLOCK, REDIS_SERVER, RedisHarness, RedisServer
from tests.shared.newer_program import NEWER, OLDER, newer_scripts
from tests.state.conformance.case import LEASE, TestMember, session
from tests.state.conformance.tickets import ticket
from wsproxy.exceptions import StoreUnavailable
from wsproxy.state.console_policies import Policy
from wsproxy.state.revocations import Match, Rule
from wsproxy.state.stores.redis.scripts import Script
from wsproxy.state.values import Held, Outcome, SlotLimits, Stage

__all__ = ["SchemasTest"]

_TWO = SlotLimits(0, 2, 0)
_HEARD = 1.0
_UNTIL = 1.8e9


def _held(id: str) -> Held:
    return Held(session(id), Stage.OPEN, Policy.PASSTHROUGH)


class _Program:
    """A version of the program: what it knows of a Redis."""

    def __init__(self, harness: RedisHarness, scripts: dict[int, dict[str, Script]]) -> None:
        self.store = harness.connect(scripts)
        self._newest = max(scripts)

    def join(self, name: str, *held: Held, knew: tuple[str, ...] = ()) -> TestMember:
        """Return a process that publishes what it holds."""
        program: Any = self  # in place of the harness
        member = TestMember(program, name)
        member.member = member.member._replace(schema=self._newest)
        member.publish(*held, knew=knew)
        return member


@unittest.skipUnless(REDIS_SERVER, "no redis-server")
class SchemasTest(unittest.TestCase):
    server: ClassVar[RedisServer]

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = RedisServer()
        cls.addClassCleanup(cls.server.close)

    def setUp(self) -> None:
        RedisHarness.server = self.server
        self.harness = RedisHarness()
        self.addCleanup(self.harness.close)
        client: Any = self.server.client()
        self.addCleanup(client.close)
        self.client = client
        self.old = self.program(RedisHarness.scripts)
        self.new = self.program(newer_scripts(CLOCK))

    def program(self, scripts: dict[int, dict[str, Script]]) -> _Program:
        program = _Program(self.harness, scripts)
        self.addCleanup(program.store.close)
        return program

    def assert_used(self, schema: int) -> None:
        self.assertEqual(self.client.get("{wsproxy}:0:schema"), b"%d" % schema)

    def rises(self, *members: TestMember) -> None:
        """Have processes beat until they go on with the newer schema, where they are not known."""
        for member in members:
            roster = member.beat().roster
            last = member.beat(roster=roster)
        self.assertFalse(last.known)
        self.assert_used(NEWER)

    def settled_newer(self) -> TestMember:
        """Return the only process, which uses the newer schema."""
        member = self.new.join("b")
        self.rises(member)
        member.publish(knew=(member.id,))
        self.harness.advance(_HEARD)
        self.assertTrue(member.beat().settled)
        return member

    def test_newer_joins(self) -> None:
        """A newer process speaks the older schema while an older one lives: one count, one set of rules."""
        a, b = self.old.join("a"), self.new.join("b")
        self.assertEqual([a.beat().schema, b.beat().schema], [OLDER, OLDER])
        a.open(session("s1"), limits=_TWO)
        b.open(session("s2", vmi="debian"), limits=_TWO)
        for member in (a, b):
            self.assertIs(member.admit(session("s3", vmi="x"), limits=_TWO).outcome, Outcome.FULL)
        rule = Rule("r", "k", 1.7e9, _UNTIL, Match(user="bob"))
        self.new.store.revoke((rule,))
        self.assertEqual(self.old.store.rules(0).rules, (rule,))
        self.old.store.issue("11", ticket())
        self.assertEqual(self.new.store.redeem("11"), ticket())
        self.assert_used(OLDER)

    def test_last_older_leaves(self) -> None:
        """When the last older process has gone, the newer ones go on in their schema, and the rules stay."""
        a, b, c = self.old.join("a"), self.new.join("b"), self.new.join("c")
        b.open(session("s1"), limits=_TWO)
        rule = Rule("r", "k", 1.7e9, _UNTIL, Match(user="bob"))
        self.old.store.revoke((rule,))
        self.old.store.issue("11", ticket())
        self.old.store.leave(a.id)
        roster = b.beat().roster
        self.assertTrue(b.beat(roster=roster).known, "the other one would still name the old process")
        self.rises(c)
        self.assertFalse(b.beat().known)
        held = _held("s1")
        b.publish(held, knew=(b.id, c.id))
        self.harness.advance(_HEARD)
        self.assertFalse(b.beat().settled, "the other one has not published")
        self.assertIs(b.admit(session("s2"), limits=_TWO).outcome, Outcome.UNSETTLED)
        c.publish()
        self.assertTrue(c.beat().settled)
        self.assertEqual(b.beat().schema, NEWER)
        self.assertEqual(self.new.store.rules(0).rules, (rule,))
        self.assertIsNone(self.new.store.redeem("11"), "tickets of an earlier epoch are void")
        c.open(session("s2", vmi="debian"), limits=_TWO)
        self.assertIs(c.admit(session("s3", vmi="x"), limits=_TWO).outcome, Outcome.FULL)
        self.assertEqual(
            {*self.client.keys("*spots"), *self.client.keys("*places")} - {b"{wsproxy}:1:places"},
            {b"{wsproxy}:2:spots"},
        )

    def test_older_comes_back(self) -> None:
        """An older process brings all to its schema at once. Nobody is admitted by what was there before."""
        b = self.settled_newer()
        b.open(session("s1"), limits=_TWO)
        rule = Rule("r", "k", 1.7e9, _UNTIL, Match(user="bob"))
        self.new.store.revoke((rule,))
        a = self.old.join("a")
        self.assert_used(OLDER)
        self.assertIs(b.admit(session("s2"), limits=_TWO).outcome, Outcome.UNSETTLED)
        self.assertEqual(self.old.store.rules(0).rules, (rule,))
        b.publish(_held("s1"), knew=(b.id,))
        self.harness.advance(_HEARD)
        self.assertTrue(a.beat().settled)
        a.open(session("s2", vmi="debian"), limits=_TWO)
        self.assertIs(a.admit(session("s3", vmi="x"), limits=_TWO).outcome, Outcome.FULL)

    def test_older_lapses(self) -> None:
        """An older process that is silent for a lease holds nobody back, and comes back as any."""
        a, b = self.old.join("a"), self.new.join("b")
        a.open(session("s1"), limits=_TWO)
        for _ in range(2):
            self.harness.advance(LEASE / 2)
            b.beat()
        self.rises(b)
        self.assertFalse(a.beat().known)
        self.assert_used(OLDER)

    def test_nobody_lives(self) -> None:
        """If all newer processes have ended before the first older one comes, it finds their rules."""
        b = self.settled_newer()
        rule = Rule("r", "k", 1.7e9, _UNTIL, Match(user="bob"))
        version = self.new.store.revoke((rule,)).version
        self.new.store.leave(b.id)
        a = self.old.join("a")
        self.assertEqual(self.old.store.rules(0).rules, (rule,))
        more = self.old.store.revoke((rule._replace(id="r2"),))
        self.assertGreater(more.version, version)
        self.assertFalse(a.beat().settled)
        self.harness.advance(LEASE)
        self.assertTrue(a.publish().settled)

    def test_move_within_a_publication(self) -> None:
        """A publication of several parts begins anew if the schema changes between two."""
        b = self.settled_newer()
        b.publish(_held("s1"), last=False)
        self.old.join("a")
        with self.assertRaises(StoreUnavailable):
            b.publish(_held("s2"), part=1)
        self.assertFalse(b.beat().known)
        self.assertEqual(b.publish(_held("s1")).held, 1)

    def test_too_old(self) -> None:
        """A schema that the program does not know any more is told, with what to do."""
        self.old.join("a")
        later = newer_scripts(CLOCK)
        del later[OLDER]
        with self.assertRaises(StoreUnavailable) as caught:
            self.program(later).join("b")
        self.assertIn("an old version of wsproxy, with schema 1", str(caught.exception))
        self.client.delete("{wsproxy}:0:schema")
        self.program(later).join("b")
        self.assert_used(NEWER)


if __name__ == "__main__":
    unittest.main()
