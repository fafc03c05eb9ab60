"""Fetches a JWK Set from a URL in a thread of its own, and keeps the keys."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence

from ..exceptions import Draining, TransportClosed
from ..net.connecting import Connector
from ..net.http_client import fetch
from ..net.resolver import Resolver
from ..net.sockets import wake
from ..net.tls_context import ClientTLS
from ..runtime.deadline import Deadline
from ..runtime.logs import get_logger
from ..runtime.threads import VitalLoop, start_thread
from .jwks import JWKSLocation, parse_jwks
from .keys import VerificationKey

__all__ = ["JWKSClient", "fetch_jwks"]

logger = get_logger("wsproxy.jwks_source")

_MAX_SIZE = 256 * 1024
_FETCH_SECONDS = 10.0
_MIN_PAUSE = 5.0

OnSocket = Callable[[socket.socket], None]
Fetch = Callable[[Deadline, OnSocket], bytes]


def fetch_jwks(location: JWKSLocation, resolver: Resolver, tls: ClientTLS) -> Fetch:
    """Return a function that fetches the set at a URL, and raises as :func:`.fetch` does."""
    url = location.url
    assert url is not None
    connector = Connector(url.host, url.port, resolver, tls if url.tls else None)
    return lambda deadline, on_socket: fetch(url, connector, _MAX_SIZE, deadline, on_socket)


class JWKSClient:
    """Keeps the keys of one URL. Safe from every thread.

    The thread fetches the set at the start, in every interval, and when a token names an unknown key. While
    fetching fails, the last keys stay in use. Only :meth:`await_key`, :meth:`load` and :meth:`stop` block.

    :param what: the URL, for the log.
    :param fetch: returns the set; raises as :func:`.fetch`.
    :param algorithms: as for :func:`.parse_jwks`.
    :param interval: seconds from the start of one fetch to the next.
    :param pause: seconds at least from the start of one fetch to the next for an unknown key.
    """

    def __init__(
        self,
        what: str,
        fetch: Fetch,
        algorithms: Sequence[str] | None,
        interval: float,
        pause: float = _MIN_PAUSE,
    ) -> None:
        self._what = what
        self._fetch = fetch
        self._algorithms = algorithms
        self._interval = interval
        self._pause = min(pause, interval)
        # Guards the attributes below; not held while fetching.
        self._changed = threading.Condition()
        self._keys: tuple[VerificationKey, ...] | None = None
        self._raw: bytes | None = None
        self._begun = 0  # fetches
        self._done = 0
        self._wanted = 0  # number of the last fetch that a caller needs for an unknown key
        self._failures = 0  # since the last success
        self._began_at = float("-inf")
        self._stopping = False
        self._socket: socket.socket | None = None
        self._loop = VitalLoop("fetching keys", self._run)
        self._thread: threading.Thread | None = None

    @property
    def keys(self) -> tuple[VerificationKey, ...]:
        """The keys of the last successful fetch; the same object until the set changes."""
        return self._keys or ()

    def start(self, owner: object) -> None:
        """Start the thread, which works for ``owner`` and fetches at once. Once only."""
        self._thread = start_thread("wsproxy-jwks", self._loop.run, owner)

    def stop_waiting(self) -> None:
        """End all waits in :meth:`await_key`, also later ones. Does not block. Idempotent."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            if self._socket:
                wake(self._socket)

    def stop(self) -> None:
        """Abort a fetch under way, end the thread and wait for it. Idempotent."""
        self._loop.stop()
        self.stop_waiting()
        if self._thread:
            self._thread.join()

    def refresh(self) -> None:
        """Have the thread fetch the set at once. Any thread; does not block."""
        with self._changed:
            self._began_at = float("-inf")
            self._changed.notify_all()

    def await_key(self, kid: str | None, deadline: Deadline | None) -> None:
        """Have the thread fetch the set once more, and wait until that is done or the key is there.

        Blocks until the deadline. It does not block if the pause between two fetches ends after that.

        :param kid: the key's name; None to wait for the first set only.
        :param deadline: how long to block at most; None to return at once.
        :raises Draining: if the client is stopped while a caller waits.
        """
        with self._changed:
            if kid is None and self._keys is not None:
                return
            number = self._begun + 1
            while not (self._stopping or self._done >= number or self._has(kid)):
                if self._begun == self._done or deadline is None:  # else the current fetch may bring the key
                    self._wanted = number
                    self._changed.notify_all()
                if deadline is None or not self._wait(deadline):
                    return
            if self._stopping and deadline:
                raise Draining("the proxy is stopping")

    def _wait(self, deadline: Deadline) -> bool:
        """Wait for a change; return False if the deadline leaves no time for it. Needs the lock."""
        try:
            left = deadline.remaining()
        except TimeoutError:
            return False
        if self._begun == self._done and self._pause_left() >= left:
            return False
        self._changed.wait(left)
        return True

    def _has(self, kid: str | None) -> bool:
        return self._keys is not None and any(kid in (None, key.kid) for key in self._keys)

    def _pause_left(self) -> float:
        """Return the seconds until the thread may fetch again for an unknown key."""
        return self._began_at + self._pause - time.monotonic()

    def load(self, deadline: Deadline) -> None:
        """Fetch the set in the calling thread, without :meth:`start`. Blocks until the deadline.

        :raises OSError, TransportClosed, ValueError: as :func:`.fetch`, and if it is not a JWK Set.
        """
        raw = self._fetch(deadline, self._watch)
        if raw != self._raw:
            keys = parse_jwks(raw, self._algorithms, symmetric=False)
            with self._changed:
                self._keys, self._raw = keys, raw

    def _run(self) -> None:
        while self._await_turn():
            before = self._keys
            failure: Exception | None = None
            try:
                self.load(Deadline(_FETCH_SECONDS))
            except (OSError, ValueError, TransportClosed) as exc:
                failure = exc
            except Exception as exc:
                logger.exception("fetching keys failed")  # a bug, which must not end the thread
                failure = exc
            self._finish(failure, new=self._keys is not before)

    def _await_turn(self) -> bool:
        """Wait until a fetch is due; return False to end."""
        with self._changed:
            while not self._stopping:
                wait = self._began_at + self._next_interval() - time.monotonic()
                if self._wanted > self._begun:
                    wait = min(wait, self._pause_left())
                if wait <= 0:
                    self._begun += 1
                    self._began_at = time.monotonic()
                    return True
                self._changed.wait(wait)
            return False

    def _next_interval(self) -> float:
        """Return the seconds to the next fetch: fewer after a failure, then doubled up to the interval."""
        if not self._failures:
            return self._interval
        return min(self._interval, self._pause * (1 << min(self._failures, 10)))

    def _finish(self, failure: Exception | None, *, new: bool) -> None:
        with self._changed:
            failures, self._failures = self._failures, self._failures + 1 if failure else 0
            self._socket = None
            self._done = self._begun
            self._changed.notify_all()
            if self._stopping:
                return
        if failure and not failures:
            logger.warning(
                "the keys at %s cannot be fetched, the last ones stay in use: %s", self._what, failure
            )
        elif not failure and (failures or new):
            logger.info("%d keys fetched from %s", len(self.keys), self._what)

    def _watch(self, sock: socket.socket) -> None:
        """Store the socket that the fetch blocks on, so that :meth:`stop` can wake it."""
        with self._changed:
            self._socket = sock
            if self._stopping:
                raise TransportClosed("the proxy is stopping")
