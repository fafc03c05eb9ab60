"""The revocation rules of all processes, and when each of them changed. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..membership import Revoked
from ..revocations import Rule, RuleSet
from ..store import PAGE
from .change_log import ChangeLog

__all__ = ["MAX_RULES", "RuleLog"]

MAX_RULES = 100_000
"""How many rules there may be, one for each token that is refused; lifts included."""

_SWEEP_SECONDS = 60.0


class RuleLog:
    """The rules, and the versions at which they changed."""

    def __init__(self) -> None:
        self._rules = RuleSet()
        self._changes = ChangeLog()
        self._swept = -math.inf

    @property
    def version(self) -> int:
        """Grows with each change."""
        return self._changes.version

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
        lifted = self._rules.ids_of(rule.kick) if rule.match is None else ()
        for id in lifted:
            self._changes.forget(id)
        if self._rules.add(rule):
            self._changes.note(rule.id)

    def since(self, version: int) -> tuple[tuple[Rule, ...], int, bool]:
        """Return rules that changed after a version, the version to ask from next, and if there are more."""
        ids, version, more = self._changes.page(version, PAGE)
        return tuple(filter(None, map(self._rules.get, ids))), version, more

    def _sweep(self, wall: float, room: int = 0) -> None:
        """Forget what is over, once a minute, or when there is no room left."""
        if wall < self._swept + _SWEEP_SECONDS and len(self._rules) + room <= MAX_RULES:
            return
        self._swept = wall
        for rule in self._rules.sweep(wall):
            self._changes.forget(rule.id)
