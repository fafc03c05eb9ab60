"""Ends a session at the expiry of its token, when its client is idle, or at its maximum age. No I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Lifetime", "LifetimeRules", "TimeIsOver"]

_LOOKS = 10  # looks at the count of data bytes, in each idle timeout


@dataclass(frozen=True)
class LifetimeRules:
    """How long sessions may last.

    :ivar grace: seconds for which a session outlives its token; ``math.inf`` for no limit.
    :ivar idle: seconds for which a client may send no data, 0 for no limit.
    :ivar age: seconds for which any session may last, 0 for no limit.
    """

    grace: float = 0.0
    idle: float = 0.0
    age: float = 0.0


class TimeIsOver(NamedTuple):
    """Close code and reason for the client, when a session's time is over."""

    code: int
    reason: str


class Lifetime:
    """Watches the time of one session.

    A token expires by UNIX time, which an administrator may set forward or back. Each look therefore turns
    the seconds that the token has left into a reading of the clock, and the earliest of these counts.

    A look finds data from the client if the count of data bytes has grown since the last look. So a session
    may be idle for up to a tenth longer than the rules say, but never shorter.

    :param now: the clock's reading when the session begins, as in every call.
    :param token_seconds: for how long its token is valid from then on.
    :ivar due: when to call :meth:`look` at the latest; ``math.inf`` if no limit applies.
    """

    def __init__(self, rules: LifetimeRules, now: float, token_seconds: float) -> None:
        self._rules = rules
        grace = f", and {rules.grace:g} s of grace" if rules.grace else ""
        self._expired = f"expired: the token's time is over{grace}"
        self._fixed = now + token_seconds + rules.grace, self._expired, 4411
        if rules.age:
            too_old = now + rules.age, f"max-age: a session lasts {rules.age:g} s at most", 4412
            self._fixed = min(self._fixed, too_old)
        self._data = 0
        self._idle_at = now + (rules.idle or math.inf)
        self._plan(now)

    def look(self, now: float, data: int, token_seconds: float = math.inf) -> TimeIsOver | None:
        """Return why the session has to end now, None if it may continue.

        :param data: how many bytes of data its client has sent so far.
        :param token_seconds: for how long its token is valid from now on.
        """
        self._fixed = min(self._fixed, (now + token_seconds + self._rules.grace, self._expired, 4411))
        if self._rules.idle and data != self._data:
            self._data, self._idle_at = data, now + self._rules.idle
        self._plan(now)
        at, reason, code = self._fixed
        if now >= at:
            return TimeIsOver(code, reason)
        if now >= self._idle_at:
            return TimeIsOver(4408, f"idle: the client sent no data for {self._rules.idle:g} s")
        return None

    def _plan(self, now: float) -> None:
        self.due = min(self._fixed[0], self._idle_at, now + (self._rules.idle or math.inf) / _LOOKS)
