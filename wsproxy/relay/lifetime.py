"""When a session ends by itself: its token's time, no data from its client, its age. No I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Lifetime", "LifetimeRules", "TimeIsOver"]

_LOOKS = 10  # at what the client sent, in the time that it may send nothing


@dataclass(frozen=True)
class LifetimeRules:
    """How long sessions may last.

    :ivar grace: seconds for which a session outlives its token; ``math.inf`` for ever.
    :ivar idle: seconds for which a client may send no data, 0 for ever.
    :ivar age: seconds for which any session may last, 0 for ever.
    """

    grace: float = 0.0
    idle: float = 0.0
    age: float = 0.0


class TimeIsOver(NamedTuple):
    """What the client of a session is told whose time is over."""

    code: int
    reason: str


class Lifetime:
    """Watches the time of one session.

    A token is over when its time is by UNIX time, which somebody may set forward; and at the latest when as
    much time has passed as it had left at the beginning, or at any look, since that may be set back, too.

    A client that sends data is noticed when the count of it has grown since the last look. So a session is
    idle for a tenth more than the rules say at most, but never for less.

    :param now: the clock's reading when the session begins, as in every call.
    :param token_seconds: for how long its token is valid from then on.
    :ivar due: when to look at the latest; ``math.inf`` if there is no need.
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
        """Return why the session has to end now, None if it may go on.

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
