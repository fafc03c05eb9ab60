"""The revocation rules of all processes, and when each of them changed. No I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from ..membership import Revoked
from ..revocations import Rule, RuleSet
from ..store import PAGE

__all__ = ["MAX_RULES", "RuleLog"]

MAX_RULES = 100_000
"""How many rules there may be, one for each token that is refused; lifts included."""

_SWEEP_SECONDS = 60.0


class RuleLog:
    """The rules by their versions.

    :ivar version: grows with each change.
    """

    def __init__(self) -> None:
        self.version = 0
        self._rules = RuleSet()
        # In the order of their changes: version and id, of which the last entry counts.
        self._log: list[tuple[int, str]] = []
        self._version_of: dict[str, int] = {}
        self._swept = float("-inf")

    def __len__(self) -> int:
        return len(self._rules)

    def revoke(self, rules: tuple[Rule, ...], wall: float) -> Revoked:
        """Add rules, all or none.

        :param wall: UNIX time.
        """
        self._sweep(wall, len(rules))
        if len(self._rules) + sum(self._rules.get(rule.id) is None for rule in rules) > MAX_RULES:
            return Revoked(False, self.version)
        self.merge(rules, wall)
        return Revoked(True, self.version)

    def lift(self, kick: str, lifted_at: float) -> Revoked:
        """Lift the rules of a kick. A second time changes nothing more."""
        until = self._rules.end_of(kick)
        if until is None:
            return Revoked(self._rules.is_lifted(kick), self.version)
        self._add(Rule.lift(kick, lifted_at, until))
        return Revoked(True, self.version)

    def merge(self, rules: Iterable[Rule], wall: float) -> None:
        """Add the rules that a member knows, however many."""
        for rule in rules:
            self._add(rule)
        self._sweep(wall)

    def _add(self, rule: Rule) -> None:
        if self._rules.add(rule):
            self.version += 1
            self._version_of[rule.id] = self.version
            self._log.append((self.version, rule.id))

    def since(self, version: int) -> tuple[tuple[Rule, ...], int, bool]:
        """Return rules that changed after a version, the version to ask from next, and if there are more."""
        found: list[Rule] = []
        for at, id in self._log[bisect_right(self._log, (version, "\U0010ffff")) :]:
            rule = self._rules.get(id)
            if rule and self._version_of[id] == at:
                if len(found) == PAGE:
                    return tuple(found), version, True
                found.append(rule)
            version = at
        return tuple(found), self.version, False

    def _sweep(self, wall: float, room: int = 0) -> None:
        """Forget what is over, once a minute, or when there is no room left."""
        if wall < self._swept + _SWEEP_SECONDS and len(self._rules) + room <= MAX_RULES:
            return
        self._swept = wall
        self._rules.sweep(wall)
        if len(self._log) > 2 * len(self._rules):
            self._version_of = {rule.id: self._version_of[rule.id] for rule in self._rules}
            self._log = sorted((version, id) for id, version in self._version_of.items())
