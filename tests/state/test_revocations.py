"""Which tokens a revocation rule refuses, and what becomes of rules that members exchange."""

from __future__ import annotations

import math
import unittest
from typing import Any

from wsproxy.state.revocations import Match, Rule, RuleSet, Subject, issued_at, joined, refuses, rule_end

NOW = 1_700_000_000.0
LEEWAY = 5.0

MATCHES = (
    Match(user="alice"),
    Match(namespace="lab-1"),
    Match(namespace="lab-1", vmi="ubuntu"),
    Match(token_id="t1"),
    Match(digest="ab"),
    Match(user="alice", namespace="lab-1", vmi="ubuntu", token_id="t1", digest="ab"),
)


def subject(issued: float | None = NOW - 60, **changed: Any) -> Subject:
    """Return alice's token, which is to open a VMI."""
    return Subject("alice", "lab-1", "ubuntu", "t1", "ab", issued)._replace(**changed)


def rule(match: Match | None, id: str = "k1", kick: str = "k1", until: float = NOW + 3600) -> Rule:
    return Rule(id, kick, NOW, until, match, "replica-1")


class IssuedTest(unittest.TestCase):
    """The contract's cases: ``iat``, no ``iat`` with a lifetime, no ``iat`` without one."""

    def test_when_issued(self) -> None:
        """``iat`` comes first; without it the expiry tells, if tokens have a longest life."""
        self.assertEqual(issued_at(NOW, NOW + 60, 3600, NOW), NOW)
        self.assertEqual(issued_at(None, NOW + 60, 3600, NOW), NOW + 60 - 3600)
        self.assertIsNone(issued_at(None, NOW + 60, None, NOW))
        self.assertIsNone(issued_at(None, math.inf, 3600, NOW))
        self.assertEqual(issued_at(None, NOW + 3600, 3600, NOW), NOW)
        self.assertIsNone(issued_at(None, NOW + 3601, 3600, NOW))  # its issuer gives it a longer life

    def test_issued_before(self) -> None:
        """A token from before is refused, one from after is not; in doubt, by the leeway, it is."""
        for age, refused in ((-3600, True), (0, True), (LEEWAY, True), (LEEWAY + 0.1, False)):
            for match in MATCHES[:3]:
                with self.subTest(age=age, match=match):
                    self.assertIs(refuses(rule(match), subject(NOW + age), NOW + 60, LEEWAY), refused)

    def test_nobody_knows_when(self) -> None:
        """A token that may be from before or after is refused until the rule ends."""
        for match in MATCHES:
            one = rule(match)
            self.assertTrue(refuses(one, subject(None), NOW + 3599, LEEWAY))
            self.assertFalse(refuses(one, subject(None), NOW + 3600, LEEWAY))

    def test_one_token(self) -> None:
        """A token that is named is refused whenever it was issued."""
        for match in MATCHES[3:]:
            self.assertTrue(refuses(rule(match), subject(NOW + 100), NOW + 200, LEEWAY))

    def test_for_ever(self) -> None:
        self.assertTrue(refuses(rule(MATCHES[0], until=math.inf), subject(), NOW * 10, LEEWAY))

    def test_end(self) -> None:
        """A rule ends when no token from before can be valid any more."""
        self.assertEqual(rule_end(NOW, 3600, LEEWAY, False), NOW + 3600 + 2 * LEEWAY)
        self.assertEqual(rule_end(NOW, None, LEEWAY, False), math.inf)
        self.assertEqual(rule_end(NOW, 3600, LEEWAY, True), math.inf)

    def test_refused_to_the_end(self) -> None:
        """The last token from before expires before its rule ends, whoever's clock is wrong by the leeway."""
        issued = NOW + LEEWAY
        expires = issued + 3600 + LEEWAY
        self.assertLessEqual(expires, rule_end(NOW, 3600, LEEWAY, False))


class MatchTest(unittest.TestCase):
    def test_all_of_it(self) -> None:
        """All that a rule says must be true of a token."""
        others = Match("bob", "lab-2", "debian", "t2", "cd")._asdict()
        for match in MATCHES:
            self.assertTrue(refuses(rule(match), subject(), NOW, LEEWAY))
            for name, other in others.items():
                with self.subTest(match=match, other=name):
                    said = bool(getattr(match, name))
                    found = refuses(rule(match), subject()._replace(**{name: other}), NOW, LEEWAY)
                    self.assertIs(found, not said)

    def test_users_as_text(self) -> None:
        """An operator writes 5, and means the user 5 as well as the user "5"."""
        for user in (5, "5"):
            self.assertTrue(refuses(rule(Match(user="5")), subject(user=user), NOW, LEEWAY))

    def test_vmi_not_known_yet(self) -> None:
        """A rule for one VMI does not concern a token of which nobody knows yet what it is to open."""
        unknown = subject()._replace(vmi=None)
        self.assertFalse(refuses(rule(MATCHES[2]), unknown, NOW, LEEWAY))
        self.assertTrue(refuses(rule(MATCHES[1]), unknown, NOW, LEEWAY))

    def test_nothing(self) -> None:
        """A rule that says nothing, and a lift, refuse nobody."""
        for match in (Match(), None):
            self.assertFalse(refuses(rule(match), subject(), NOW, LEEWAY))


class SetTest(unittest.TestCase):
    def find(self, rules: RuleSet, **changed: Any) -> Rule | None:
        return rules.find(subject(**changed), NOW, LEEWAY)

    def test_found(self) -> None:
        """A set finds a rule by whatever it says."""
        for match in MATCHES:
            with self.subTest(match=match):
                rules = RuleSet([rule(match), rule(Match(user="somebody else"), "k2", "k2")])
                self.assertEqual(self.find(rules), rule(match))
        self.assertIsNone(self.find(RuleSet()))

    def test_several(self) -> None:
        """Of several rules about one user each counts, and each is lifted for itself."""
        rules = RuleSet(rule(MATCHES[0], id, id) for id in ("k1", "k2"))
        for kick in ("k1", "k2"):
            self.assertIsNotNone(self.find(rules))
            self.assertTrue(rules.add(Rule.lift(kick, NOW, NOW + 3600)))
        self.assertIsNone(self.find(rules))
        self.assertEqual(len(rules), 2)
        self.assertTrue(rules.is_lifted("k1"))
        self.assertIsNone(rules.get("k1"))

    def test_no_change(self) -> None:
        """What is known already changes nothing."""
        lift = Rule.lift("k2", NOW, NOW + 3600)
        rules = RuleSet([rule(MATCHES[0]), lift])
        self.assertFalse(rules.add(rule(MATCHES[0])) or rules.add(lift))
        self.assertFalse(rules.add(rule(MATCHES[0], "r9", "k2")))

    def test_lift_of_an_endless_rule(self) -> None:
        """It is remembered for thirty days, and another as long as what it lifts."""
        self.assertEqual(Rule.lift("k", NOW, math.inf).until, NOW + 30 * 86400)
        self.assertEqual(Rule.lift("k", NOW, NOW + 60).until, NOW + 60)

    def test_sweep(self) -> None:
        """What has been over for an hour is forgotten."""
        lift = Rule.lift("k2", NOW, NOW + 60)
        rules = RuleSet([rule(MATCHES[0], until=NOW + 60), rule(MATCHES[0], "k3", "k3", math.inf), lift])
        self.assertEqual(rules.sweep(NOW + 60 + 3599), [])
        self.assertEqual(len(rules.sweep(NOW + 60 + 3600)), 2)
        self.assertEqual([one.id for one in rules], ["k3"])
        self.assertEqual(self.find(rules), rule(MATCHES[0], "k3", "k3", math.inf))

    def test_joined(self) -> None:
        """Two versions of one rule come to the later of both."""
        one, other = rule(MATCHES[0]), rule(MATCHES[1], until=NOW + 9999)._replace(made_at=NOW - 5)
        self.assertEqual(joined(one, other), joined(other, one))
        self.assertEqual((joined(one, other).made_at, joined(one, other).until), (NOW, NOW + 9999))
        rules = RuleSet([one, other])
        self.assertEqual(list(rules), [joined(one, other)])


if __name__ == "__main__":
    unittest.main()
