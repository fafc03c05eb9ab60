"""The operator's list of the kicks that are in force. No I/O."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..exceptions import BadRequest
from ..state.participant.known_rules import RevocationRules
from ..state.revocations import Match, Rule

__all__ = ["MAX_PAGE", "Revocation", "RevocationPage", "needs_iat", "page_of"]

MAX_PAGE = 1000
"""How many kicks one answer has at most."""


@dataclass(frozen=True)
class Revocation:
    """A kick whose rules refuse tokens.

    :ivar made_at: UNIX time of the kick.
    :ivar until: UNIX time at which its last rule ends, rules for tokens of ended sessions left aside while
        there are others; ``math.inf`` for never.
    :ivar maker: name of the process that made it.
    :ivar matches: what its rules match, each alone.
    :ivar tokens: how many tokens of ended sessions it refuses by themselves.
    """

    kick: str
    made_at: float
    until: float
    maker: str
    matches: tuple[Match, ...]
    tokens: int


@dataclass(frozen=True)
class RevocationPage:
    """Some of the kicks, the newest first.

    :ivar next: what to ask with for those that are older; "" if there are none.
    """

    kicks: tuple[Revocation, ...]
    next: str = ""


def needs_iat(match: Match, settings: RevocationRules) -> bool:
    """Whether a rule refuses a token without ``iat`` however late it was issued."""
    return (settings.lifetime is None or settings.eternal) and not match.names_token


def page_of(rules: Iterable[Rule], now: float, before: str = "", most: int = MAX_PAGE) -> RevocationPage:
    """Return the newest kicks that are in force, from those older than ``before``.

    It goes through all rules. So its time grows with them: a tenth of a second for 100,000.

    :param now: UNIX time.
    :param before: :attr:`RevocationPage.next` of another page; "" for the first page.
    :param most: how many it returns at most.
    :raises BadRequest: if ``before`` is not from a page.
    """
    end = _parsed(before) if before else (math.inf, "")
    in_force = [rule for rule in rules if rule.match and rule.until > now]
    kicks = {(rule.made_at, rule.kick) for rule in in_force}
    chosen = heapq.nlargest(most + 1, (kick for kick in kicks if kick < end))
    of_kick: dict[tuple[float, str], list[Rule]] = {kick: [] for kick in chosen[:most]}
    for rule in in_force:
        if (kick := (rule.made_at, rule.kick)) in of_kick:
            of_kick[kick].append(rule)
    following = "{!r}-{}".format(*chosen[most - 1]) if len(chosen) > most else ""
    return RevocationPage(tuple(map(_folded, of_kick.values())), following)


def _parsed(before: str) -> tuple[float, str]:
    made_at, _, kick = before.partition("-")
    try:
        return float(made_at), kick
    except ValueError:
        raise BadRequest("before must be the next of another page") from None


def _folded(rules: list[Rule]) -> Revocation:
    """Return what the rules of one kick come to."""
    own = [rule for rule in rules if rule.ends_sessions]
    tokens = len(rules) - len(own)
    matches = tuple(dict.fromkeys(rule.match for rule in own if rule.match))
    until = max(rule.until for rule in own or rules)
    first = rules[0]
    return Revocation(first.kick, first.made_at, until, first.maker, matches, tokens)
