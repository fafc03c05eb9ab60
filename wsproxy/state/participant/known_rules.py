"""The revocation rules that this process applies, in memory. No I/O."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ...runtime.deadline import Clock
from ...runtime.logs import get_logger
from ...runtime.wall_clock import unix_time
from ...tokens.claims import Grant
from ..membership import PARTS, Revoked
from ..revocations import Rule, RuleSet, Subject, issued_at

__all__ = ["KnownRules", "RevocationRules", "UntoldRules"]

logger = get_logger("wsproxy.state")


@dataclass(frozen=True)
class RevocationRules:
    """The settings that say how tokens are compared with revocation rules.

    :ivar lifetime: the longest life that the issuer gives tokens, seconds; None if nobody says.
    :ivar leeway: seconds by which other clocks may be wrong.
    :ivar expiry_leeway: seconds by which a grant expires later than its token.
    :ivar eternal: whether tokens without ``exp`` are accepted.
    """

    lifetime: float | None = None
    leeway: float = 5.0
    expiry_leeway: float = 0.0
    eternal: bool = False


class KnownRules:
    """Which tokens are revoked, as far as this process knows. Safe from every thread.

    :param clock: UNIX time, seconds.
    """

    def __init__(self, rules: RevocationRules, clock: Clock = unix_time) -> None:
        self.settings = rules
        self._clock = clock
        self._lock = threading.Lock()  # guards changes of the attribute below
        self._rules = RuleSet()

    def __iter__(self) -> Iterator[Rule]:
        with self._lock:
            return iter(list(self._rules))

    def learn(self, rules: Iterable[Rule]) -> list[Rule]:
        """Take rules in, and return those of them that change anything. Never blocks."""
        with self._lock:
            fresh = [rule for rule in rules if self._rules.add(rule)]
            self._rules.sweep(self._clock())
            return fresh

    def is_revoked(self, grant: Grant, vmi: str | None) -> bool:
        """Whether the token of a grant is revoked. False for a grant without a token. Never blocks.

        :param vmi: what it is to open; None if that is not known yet.
        """
        if not len(self._rules) or grant.token_key is None:
            return False
        return self._found(self._rules, self._subject(grant, vmi, None)) is not None

    def ended_by(self, rules: RuleSet, grant: Grant, vmi: str, opened: float) -> Rule | None:
        """Return that of some rules which ends a session; None if none does. Never blocks.

        :param opened: UNIX time at which the session began. If it has no token, the rules compare this time.
        """
        return self._found(rules, self._subject(grant, vmi, opened))

    def _found(self, rules: RuleSet, subject: Subject) -> Rule | None:
        return rules.find(subject, self._clock(), self.settings.leeway)

    def _subject(self, grant: Grant, vmi: str | None, issued: float | None) -> Subject:
        key, settings, digest = grant.token_key, self.settings, ""
        if key:
            digest = key.digest.hex()
            expires, latest = key.expires_at - settings.expiry_leeway, self._clock() + settings.leeway
            issued = issued_at(key.issued_at, expires, settings.lifetime, latest)
        return Subject(grant.user, grant.namespace, vmi, grant.token_id, digest, issued)


class UntoldRules:
    """Rules that the store may not have yet. Safe from every thread."""

    def __init__(self) -> None:
        self._rules: dict[str, Rule] = {}  # by id; each operation on it is one of the dict
        self._is_full = False  # whether the store had no room the last time; any thread may assign it

    def __len__(self) -> int:
        return len(self._rules)

    def add(self, rules: Iterable[Rule]) -> None:
        """Take note of rules. Never blocks."""
        self._rules.update({rule.id: rule for rule in rules})

    def tell(self, revoke: Callable[[tuple[Rule, ...]], Revoked]) -> None:
        """Tell the store of them, in parts. It keeps those for which the store has no room.

        :param revoke: as :meth:`.Store.revoke`; blocks and raises as that does.
        """
        while rules := tuple(list(self._rules.values())[:PARTS]):
            if not revoke(rules).done:
                if not self._is_full:
                    logger.warning("the store has as many revocation rules as it may; lift some of them")
                self._is_full = True
                return
            for rule in rules:
                self._rules.pop(rule.id, None)
        self._is_full = False
