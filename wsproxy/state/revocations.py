"""Revocation rules: which tokens are refused though they are valid. No I/O.

An operator's kick makes one rule for what was named, and one for the token of each session that it ended. A
lift is a rule too, with a later time. It takes all rules of its kick out of force, also those that arrive
later. So members may exchange their rules in any order, and any number of times: all end up with the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ["Match", "Rule", "RuleSet", "Subject", "issued_at", "joined", "refuses", "rule_end", "rule_order"]

_MARGIN = 3600.0  # seconds for which a rule is kept after its end: members' clocks may be wrong
_LIFT_SECONDS = 30 * 86400.0  # for which the lift of an endless rule is kept


class Match(NamedTuple):
    """Which tokens a rule is about: those of which all of it is true. An empty value says nothing.

    :ivar user: the user as text, so "5" is the user 5 as well.
    :ivar vmi: name of a VMI, with its namespace. The tokens may still open others.
    :ivar token_id: see :attr:`.Grant.token_id`.
    :ivar digest: see :attr:`.TokenKey.digest`, in hexadecimal digits.
    """

    user: str = ""
    namespace: str = ""
    vmi: str = ""
    token_id: str = ""
    digest: str = ""

    @property
    def names_token(self) -> bool:
        """Whether it is about one token, whenever that was issued."""
        return bool(self.token_id or self.digest)


class Rule(NamedTuple):
    """One revocation rule.

    :ivar id: random without a dot, and never used for anything else; but see :meth:`of_token`.
    :ivar kick: id of the kick that made it.
    :ivar made_at: UNIX time by the clock of who made it.
    :ivar until: UNIX time of its end; ``math.inf`` for never.
    :ivar match: the tokens; None if it lifts the other rules of the kick.
    :ivar maker: name of the member that made it, for people.
    """

    id: str
    kick: str
    made_at: float
    until: float
    match: Match | None
    maker: str = ""

    @classmethod
    def of_token(cls, rule: Rule, digest: str, until: float) -> Rule:
        """Return the rule for the token of a session that another rule has ended.

        :param digest: of the token, in hexadecimal digits.
        :param until: UNIX time at which the token expires.
        """
        return cls(f"{rule.kick}.{digest}", rule.kick, rule.made_at, until, Match(digest=digest), rule.maker)

    @property
    def ends_sessions(self) -> bool:
        """Whether it ends sessions. A rule of :meth:`of_token` refuses the token, and a lift ends none."""
        return "." not in self.id

    @classmethod
    def lift(cls, kick: str, lifted_at: float, until: float, maker: str = "") -> Rule:
        """Return the rule that lifts a kick's rules, which would end at ``until``."""
        end = lifted_at + _LIFT_SECONDS if until == math.inf else until
        return cls(f"{kick}.lift", kick, lifted_at, end, None, maker)


class Subject(NamedTuple):
    """A token, and what it is to open.

    :ivar vmi: None if that is not known yet.
    :ivar digest: in hexadecimal digits; "" for a grant without a token.
    :ivar issued_at: see :func:`issued_at`.
    """

    user: str | int
    namespace: str
    vmi: str | None
    token_id: str
    digest: str
    issued_at: float | None


def issued_at(iat: float | None, exp: float, lifetime: float | None, latest: float) -> float | None:
    """Return when a token counts as issued, UNIX time; None if nobody can know.

    :param iat: its ``iat`` claim; None without one.
    :param exp: its ``exp`` claim; ``math.inf`` without one.
    :param lifetime: the longest life that the issuer gives tokens, seconds; None if that is not set.
    :param latest: UNIX time after which it cannot have been issued. If it seems so, it lives longer than
        ``lifetime`` says.
    """
    if iat is not None:
        return iat
    if lifetime is None or exp == math.inf or exp - lifetime > latest:
        return None
    return exp - lifetime


def rule_end(made_at: float, lifetime: float | None, leeway: float, eternal: bool) -> float:
    """Return when no token from before a rule can be valid any more, UNIX time; ``math.inf`` for never.

    :param lifetime: as for :func:`issued_at`.
    :param leeway: seconds by which other clocks may be wrong.
    :param eternal: whether tokens without ``exp`` are accepted.
    """
    return math.inf if lifetime is None or eternal else made_at + lifetime + 2 * leeway


def refuses(rule: Rule, subject: Subject, now: float, leeway: float) -> bool:
    """Whether a rule that is not lifted refuses a token.

    :param now: UNIX time.
    :param leeway: seconds by which other clocks may be wrong; in doubt a token is refused.
    """
    match = rule.match
    if match is None or rule.until <= now or not _fits(match, subject):
        return False
    issued = subject.issued_at
    return match.names_token or issued is None or issued <= rule.made_at + leeway


def _fits(match: Match, subject: Subject) -> bool:
    user, namespace, vmi, token_id, digest = match
    return (
        any(match)
        and user in ("", str(subject.user))
        and namespace in ("", subject.namespace)
        and vmi in ("", subject.vmi)
        and token_id in ("", subject.token_id)
        and digest in ("", subject.digest)
    )


def joined(one: Rule, other: Rule) -> Rule:
    """Return what two versions of the same rule come to, the same in any order. Mostly they are equal."""
    if one == other:
        return one
    made_at, until = max(one.made_at, other.made_at), max(one.until, other.until)
    return max(one, other, key=rule_order)._replace(made_at=made_at, until=until)


def rule_order(rule: Rule) -> str:
    """Return the text by which two versions of the same rule are ordered; its bytes count."""
    return json.dumps([rule.kick, rule.match, rule.maker])


class RuleSet:
    """The rules that are in force, and the lifts. Needs a lock of its owner's, but for :meth:`find`.

    Any thread may call :meth:`find`, also while the owner changes the rules. Nothing blocks.
    """

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules: dict[str, Rule] = {}  # by id
        self._lifts: dict[str, Rule] = {}  # by kick
        self._of_kick: dict[str, set[str]] = {}  # ids
        # By what finds them first. The tuples are replaced and never changed, because others read them.
        self._index: dict[tuple[str, ...], tuple[Rule, ...]] = {}
        for rule in rules:
            self.add(rule)

    def __len__(self) -> int:
        return len(self._rules) + len(self._lifts)

    def __iter__(self) -> Iterator[Rule]:
        yield from self._lifts.values()
        yield from self._rules.values()

    def add(self, rule: Rule) -> bool:
        """Take a rule in, or a lift; return whether that changed anything."""
        return self._add_lift(rule) if rule.match is None else self._add_rule(rule)

    def _add_lift(self, lift: Rule) -> bool:
        known = self._lifts.get(lift.kick)
        self._lifts[lift.kick] = new = joined(known, lift) if known else lift
        for id in self.ids_of(lift.kick):
            self._drop(self._rules[id])
        return new != known

    def _add_rule(self, rule: Rule) -> bool:
        if rule.kick in self._lifts:
            return False
        known = self._rules.get(rule.id)
        if known == rule:
            return False
        if known:
            rule = joined(known, rule)
            self._drop(known)
        self._rules[rule.id] = rule
        self._of_kick.setdefault(rule.kick, set()).add(rule.id)
        key = _key(rule)
        self._index[key] = (*self._index.get(key, ()), rule)
        return rule != known

    def _drop(self, rule: Rule) -> None:
        del self._rules[rule.id]
        ids = self._of_kick[rule.kick]
        ids.remove(rule.id)
        if not ids:
            del self._of_kick[rule.kick]
        key = _key(rule)
        if rest := tuple(one for one in self._index[key] if one.id != rule.id):
            self._index[key] = rest
        else:
            del self._index[key]

    def get(self, id: str) -> Rule | None:
        """Return a rule or lift by its id."""
        kick, _, lift = id.rpartition(".")
        return self._lifts.get(kick) if lift == "lift" else self._rules.get(id)

    def ids_of(self, kick: str) -> tuple[str, ...]:
        """Return the ids of a kick's rules that are in force."""
        return tuple(self._of_kick.get(kick, ()))

    def is_lifted(self, kick: str) -> bool:
        """Whether the rules of a kick have been lifted."""
        return kick in self._lifts

    def end_of(self, kick: str) -> float | None:
        """Return when the last rule of a kick ends, UNIX time; None if none is in force."""
        return max((self._rules[id].until for id in self.ids_of(kick)), default=None)

    def find(self, subject: Subject, now: float, leeway: float) -> Rule | None:
        """Return a rule that refuses a token; None if none does. Parameters are as for :func:`refuses`."""
        if not self._index:
            return None
        for key in _keys(subject):
            for rule in self._index.get(key, ()):
                if refuses(rule, subject, now, leeway):
                    return rule
        return None

    def sweep(self, now: float) -> list[Rule]:
        """Forget what has been over for an hour, and return it.

        :param now: UNIX time.
        """
        over = [rule for rule in self if rule.until + _MARGIN <= now]
        for rule in over:
            if rule.match:
                self._drop(rule)
            else:
                del self._lifts[rule.kick]
        return over


def _key(rule: Rule) -> tuple[str, ...]:
    """Return by what a rule is found: the narrowest of what it says."""
    match = rule.match
    assert match is not None
    if match.digest:
        return "digest", match.digest
    if match.token_id:
        return "token", match.token_id
    if match.user:
        return "user", match.user
    return ("vmi", match.namespace, match.vmi) if match.vmi else ("namespace", match.namespace)


def _keys(subject: Subject) -> Iterator[tuple[str, ...]]:
    yield "digest", subject.digest
    yield "token", subject.token_id
    yield "user", str(subject.user)
    yield "vmi", subject.namespace, subject.vmi or ""
    yield "namespace", subject.namespace
