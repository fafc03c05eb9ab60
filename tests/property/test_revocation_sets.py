"""Sets of revocation rules come to the same, in whatever order and however often they are put together."""

from __future__ import annotations

import unittest
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from wsproxy.state.revocations import Match, Rule, RuleSet, Subject, refuses

from .profile import many

_TIMES = st.sampled_from((1.0, 2.0, 3.0, float("inf")))
_MATCHES = st.builds(Match, user=st.sampled_from(("", "a", "b")), namespace=st.sampled_from(("", "n")))
_KICKS = st.sampled_from("kl")
_RULES = st.builds(Rule, st.sampled_from("rst"), _KICKS, st.sampled_from((1.0, 2.0)), _TIMES, _MATCHES)
_LIFTS = st.builds(Rule.lift, _KICKS, st.sampled_from((1.0, 2.0)), _TIMES)


def _with_own_kick(rule: Rule) -> Rule:
    """An id belongs to one kick."""
    return rule._replace(id=f"{rule.kick}-{rule.id}") if rule.match is not None else rule


_SETS = st.lists(st.one_of(_RULES, _LIFTS).map(_with_own_kick), max_size=6)


def merged(*sets: Iterable[Rule]) -> frozenset[Rule]:
    """Put sets together, one after the other."""
    rules = RuleSet()
    for one in sets:
        for rule in one:
            rules.add(rule)
    return frozenset(rules)


class MergeTest(unittest.TestCase):
    @many
    @given(_SETS, _SETS)
    def test_commutative(self, one: list[Rule], other: list[Rule]) -> None:
        """The order of two sets does not matter."""
        self.assertEqual(merged(one, other), merged(other, one))

    @many
    @given(_SETS, _SETS, _SETS)
    def test_associative(self, one: list[Rule], other: list[Rule], third: list[Rule]) -> None:
        """Nor does it matter which two are put together first."""
        self.assertEqual(merged(merged(one, other), third), merged(one, merged(other, third)))

    @many
    @given(_SETS)
    def test_idempotent(self, one: list[Rule]) -> None:
        """What is known already changes nothing."""
        self.assertEqual(merged(one, one, merged(one)), merged(one))
        rules = RuleSet(one)
        self.assertFalse(any(rules.add(rule) for rule in one))

    @many
    @given(_SETS, st.sampled_from(("a", "b")))
    def test_found(self, one: list[Rule], user: str) -> None:
        """The index finds a rule exactly where some rule refuses."""
        rules = RuleSet(one)
        subject = Subject(user, "n", None, "", "", 1.5)
        found = rules.find(subject, 1.5, 0.0)
        expected = [rule for rule in rules if refuses(rule, subject, 1.5, 0.0)]
        self.assertEqual(found is not None, bool(expected))


if __name__ == "__main__":
    unittest.main()
