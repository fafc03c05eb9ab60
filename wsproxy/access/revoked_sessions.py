"""Ends the sessions of revoked tokens."""

from __future__ import annotations

from collections.abc import Iterable

from ..state.participant.known_rules import KnownRules
from ..state.revocations import Rule, RuleSet
from .sessions import LiveSessions

__all__ = ["end_revoked"]


def end_revoked(sessions: LiveSessions, known: KnownRules, rules: Iterable[Rule]) -> list[Rule]:
    """End every session that one of these revocation rules concerns. Any thread; does not block.

    A session without a token ends if it began before the rule was made.

    :returns: a rule for the token of each, so that the client cannot return with it.
    """
    chosen = RuleSet(rule for rule in rules if rule.ends_sessions)
    more: dict[str, Rule] = {}
    for session in sessions.all() if len(chosen) else ():
        rule = known.ended_by(chosen, session.grant, session.vmi, session.opened)
        if rule is None:
            continue
        session.close()
        if (key := session.grant.token_key) and rule.match and not rule.match.digest:
            digest = key.digest.hex()
            more[digest] = Rule.of_token(rule, digest, key.expires_at)
    return list(more.values())
