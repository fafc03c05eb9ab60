"""Revocation rules, as the store keeps them."""

from __future__ import annotations

import math

from wsproxy.state.membership import PARTS, Revoked, RulesPage
from wsproxy.state.revocations import Match, Rule
from wsproxy.state.shared.rule_log import MAX_RULES

from .case import StoreCase, session

__all__ = ["Revocations"]

NOW = 1_700_000_000.0


def rule(id: str, kick: str = "k1", until: float = NOW + 3600, **match: str) -> Rule:
    """Return a rule; by default one about a user of its own."""
    return Rule(id, kick, NOW, until, Match(**(match or {"user": id})), "a")


class Revocations(StoreCase):
    def ids(self, since: int = 0) -> list[str]:
        return [one.id for one in self.store.rules(since).rules]

    def test_rules(self) -> None:
        """What is revoked is in the list from then on, as it was, in the order of the changes."""
        rules = (rule("r1"), rule("r2", "k2", math.inf, namespace="n", vmi="v"), rule("r3", digest="ab"))
        before = self.store.rules(0)
        self.assertEqual(before, RulesPage(self.a.epoch, before.version, ()))
        versions = [self.store.revoke((one,)).version for one in rules]
        self.assertEqual(versions, sorted(set(versions)))
        self.assertGreater(versions[0], before.version)
        self.assertEqual(self.store.rules(0), RulesPage(self.a.epoch, versions[-1], rules))
        self.assertEqual(self.store.rules(versions[0]).rules, rules[1:])
        self.assertEqual(self.store.rules(versions[-1]).rules, ())
        self.assertEqual(self.a.beat().version, versions[-1])

    def test_repeated(self) -> None:
        """The same rule again is no change."""
        version = self.store.revoke((rule("r1"),)).version
        self.assertEqual(self.store.revoke((rule("r1"),)), Revoked(True, version))
        self.a.publish(rules=(rule("r1"),))
        self.assertEqual(self.a.beat().version, version)

    def test_lift(self) -> None:
        """A lift takes the rules of its kick away, and is a change itself; twice is once."""
        self.store.revoke((rule("r1"), rule("r2"), rule("r3", "k2")))
        version = self.a.beat().version
        lifted = self.store.lift("k1", NOW + 1)
        self.assertTrue(lifted.done)
        self.assertGreater(lifted.version, version)
        [lift] = self.store.rules(version).rules
        self.assertEqual((lift.kick, lift.match, lift.made_at), ("k1", None, NOW + 1))
        self.assertEqual(sorted(self.ids()), sorted(["r3", lift.id]))
        self.assertEqual(self.store.lift("k1", NOW + 2), lifted)
        self.assertFalse(self.store.lift("k9", NOW).done)

    def test_late_rule(self) -> None:
        """A rule of a kick that is lifted comes too late, from a member that was cut off, too."""
        self.store.revoke((rule("r1"),))
        self.store.lift("k1", NOW + 1)
        self.store.revoke((rule("r1"), rule("r2")))
        self.a.publish(rules=(rule("r1"), rule("r3")))
        self.assertEqual([one.match for one in self.store.rules(0).rules], [None])

    def test_published(self) -> None:
        """A member that knows a rule, or a lift, brings it; members that know others bring theirs."""
        lift = Rule.lift("k2", NOW + 1, NOW + 3600)
        self.store.revoke((rule("r2", "k2"),))
        self.a.publish(rules=(rule("r1"), lift))
        self.b.publish(rules=(rule("r3"), rule("r2", "k2")))
        self.assertEqual(sorted(self.ids()), sorted(["r1", lift.id, "r3"]))

    def test_expired(self) -> None:
        """A rule that has been over for an hour goes; one without an end stays."""
        self.store.revoke((rule("r1"), rule("r2", until=math.inf)))
        self.passes(3600)
        self.store.revoke((rule("r3", until=math.inf),))
        self.assertEqual(self.ids(), ["r1", "r2", "r3"])
        self.passes(3700)
        self.store.revoke((rule("r4", until=math.inf),))
        self.assertEqual(self.ids(), ["r2", "r3", "r4"])

    def test_bound(self) -> None:
        """There are 100,000 at most; none is forgotten for another's sake, and a lift makes room."""
        rules = [rule(f"r{number}", f"k{number % 10}", digest=f"{number:08x}") for number in range(MAX_RULES)]
        for start in range(0, MAX_RULES, PARTS):
            self.assertTrue(self.store.revoke(tuple(rules[start : start + PARTS])).done)
        version = self.a.beat().version
        self.assertEqual(self.store.revoke((rule("one-more"),)), Revoked(False, version))
        self.assertTrue(self.store.revoke((rules[0],)).done)
        self.assertTrue(self.store.lift("k1", NOW).done)
        self.assertTrue(self.store.revoke((rule("one-more", "k3"),)).done)
        self.assertEqual(self.pages(), MAX_RULES // 10 * 9 + 2)

    def pages(self) -> int:
        """Read all rules, page by page, and return how many there are."""
        found, version, more = set(), 0, True
        while more:
            page = self.store.rules(version)
            self.assertLessEqual(len(page.rules), 1000)
            found |= {one.id for one in page.rules}
            version, more = page.version, page.more
        self.assertEqual(version, self.a.beat().version)
        return len(found)

    def test_who_is_behind(self) -> None:
        """A member is behind until it has acknowledged the version, or is gone."""
        version = self.store.revoke((rule("r1"),)).version
        self.assertEqual(self.store.behind(version), (self.a.member, self.b.member))
        self.a.beat(applied=version)
        self.assertEqual(self.store.behind(version), (self.b.member,))
        self.assertEqual(self.store.behind(0), ())
        self.store.leave(self.b.id)
        self.assertEqual(self.store.behind(version), ())

    def test_version_at_the_opening(self) -> None:
        """Who opens a console learns which version there is by then."""
        self.a.admit(session("s1"))
        version = self.store.revoke((rule("r1"),)).version
        self.assertEqual(self.a.opened("s1").version, version)
