"""Tokens that are refused though they are valid. No I/O."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from ..exceptions import Busy
from ..runtime.deadline import Clock
from ..runtime.wall_clock import unix_time
from ..tokens.claims import TokenKey

__all__ = ["MAX_DENIED", "Denylist"]

MAX_DENIED = 100_000
"""How many tokens are remembered at once; some 20 MB."""


class Denylist:
    """The tokens that an operator has revoked, in one process. Safe from every thread; never blocks.

    It knows them only for as long as they would be valid. None is forgotten for another's sake.

    :param clock: UNIX time, seconds.
    """

    def __init__(self, clock: Clock = unix_time) -> None:
        self._lock = threading.Lock()  # guards the attribute below; reading is one operation of the dict
        self._clock = clock
        self._until: dict[bytes, float] = {}

    def deny(self, tokens: Iterable[TokenKey]) -> None:
        """Refuse some tokens from now on.

        :raises Busy: if there would be too many; then none of them is refused.
        """
        with self._lock:
            now = self._clock()
            self._until = {key: until for key, until in self._until.items() if until > now}
            until = dict(self._until)
            for digest, expires_at in tokens:  # of two tokens with one jti the later counts
                until[digest] = max(expires_at, until.get(digest, expires_at))
            if len(until) > MAX_DENIED:
                raise Busy(f"more than {MAX_DENIED} tokens would have to be remembered")
            self._until = until

    def denies(self, token: TokenKey | None) -> bool:
        """Whether a token is refused; None is no token."""
        return token is not None and token.digest in self._until

    def __len__(self) -> int:
        return len(self._until)
