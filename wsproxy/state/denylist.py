"""Valid tokens that the proxy refuses because an operator has revoked them. No I/O."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from ..exceptions import Busy
from ..runtime.deadline import Clock
from ..runtime.wall_clock import unix_time
from ..tokens.claims import TokenKey

__all__ = ["MAX_DENIED", "Denylist"]

MAX_DENIED = 100_000
"""Most tokens that the list holds at once; about 20 MB."""


class Denylist:
    """The tokens that an operator has revoked, in one process. Safe from every thread; never blocks.

    It drops a token only after the token has expired, and never to make room for another one.

    :param clock: UNIX time, seconds.
    """

    def __init__(self, clock: Clock = unix_time) -> None:
        self._lock = threading.Lock()  # guards writes to _until; a read is one operation of the dict
        self._clock = clock
        self._until: dict[bytes, float] = {}

    def deny(self, tokens: Iterable[TokenKey]) -> None:
        """Refuse these tokens from now on, until they expire.

        :raises Busy: if the list would become too long; it then takes none of these tokens.
        """
        with self._lock:
            now = self._clock()
            self._until = {key: until for key, until in self._until.items() if until > now}
            until = dict(self._until)
            for digest, expires_at in tokens:  # if two tokens have the same jti, the later expiry counts
                until[digest] = max(expires_at, until.get(digest, expires_at))
            if len(until) > MAX_DENIED:
                raise Busy(f"the list of revoked tokens cannot hold more than {MAX_DENIED}")
            self._until = until

    def denies(self, token: TokenKey | None) -> bool:
        """Whether a token is on the list; False for None, which stands for no token."""
        return token is not None and token.digest in self._until

    def __len__(self) -> int:
        return len(self._until)
