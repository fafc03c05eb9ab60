"""Fetches a JWK Set from a URL in a thread of its own, and keeps the keys.

Processes that share a store fetch the set for each other.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence

from ..exceptions import Draining, TransportClosed
from ..net.connecting import Connector
from ..net.http_client import fetch
from ..net.resolver import Resolver
from ..net.shared_copy import ALONE, SharedCopy, borrowed
from ..net.sockets import wake
from ..net.tls_context import ClientTLS
from ..runtime.deadline import Deadline
from ..runtime.logs import get_logger
from ..runtime.threads import VitalLoop, start_thread
from .jwks import JWKSLocation, parse_jwks
from .keys import VerificationKey

__all__ = ["MOST_SECONDS", "JWKSClient", "fetch_jwks", "set_name"]

logger = get_logger("wsproxy.jwks_source")

_MAX_SIZE = 256 * 1024
_FETCH_SECONDS = 10.0
_MIN_PAUSE = 5.0

MOST_SECONDS = _FETCH_SECONDS + 1.0
"""What a fetch takes at most, with what goes before and after."""

OnSocket = Callable[[socket.socket], None]
Fetch = Callable[[Deadline, OnSocket], bytes]

_NEVER = float("-inf")


def fetch_jwks(location: JWKSLocation, resolver: Resolver, tls: ClientTLS) -> Fetch:
    """Return a function that fetches the set at a URL, and raises as :func:`.fetch` does."""
    url = location.url
    assert url is not None
    connector = Connector(url.host, url.port, resolver, tls if url.tls else None)
    return lambda deadline, on_socket: fetch(url, connector, _MAX_SIZE, deadline, on_socket)


def set_name(location: JWKSLocation, ca_file: str | None) -> str:
    """Return the name of the set at a URL among processes: who does not trust the same has another name.

    The URL may have a credential in its query, so the name has nothing but a digest.

    :raises OSError: if the file of CAs cannot be read.
    """
    url = location.url
    assert url is not None
    authorities = None
    if ca_file is not None:
        with open(ca_file, "rb") as file:
            authorities = hashlib.sha256(file.read()).hexdigest()
    text = json.dumps([url.tls, url.host, url.port, url.target, authorities])
    return f"jwks:{hashlib.sha256(text.encode()).hexdigest()}"


class JWKSClient:
    """Keeps the keys of one URL. Safe from every thread.

    The thread fetches the set at the start, in every interval, and when a token names an unknown key. While
    fetching fails, the last keys stay in use. Only :meth:`await_key`, :meth:`load` and :meth:`stop` block.

    If another process has fetched the set lately enough, the thread takes that one, and parses it as if it
    came from the URL.

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
        # Times by the monotonic clock.
        self._began_at = _NEVER  # when the last fetch began, at the latest, if another process did it
        self._done_at = _NEVER  # when the last fetch that is done began, at the earliest
        self._fetch_after = _NEVER  # the same of the current one
        self._wanted_at = _NEVER  # when a caller last needed a fetch for an unknown key
        self._demanded_at = _NEVER  # when somebody last asked for a fetch at once
        self._is_fetching = False
        self._failures = 0  # since the last success
        self._copy: Callable[[], SharedCopy] = lambda: ALONE
        self._stopping = False
        self._socket: socket.socket | None = None
        self._loop = VitalLoop("fetching keys", self._run)
        self._thread: threading.Thread | None = None

    @property
    def keys(self) -> tuple[VerificationKey, ...]:
        """The keys of the last successful fetch; the same object until the set changes."""
        return self._keys or ()

    def start(self, owner: object, copy: Callable[[], SharedCopy] = lambda: ALONE) -> None:
        """Start the thread, which works for ``owner`` and fetches at once. Once only.

        :param copy: returns what processes have of the set together; it may block on the file system.
        """
        self._copy = copy
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
            self._demanded_at = time.monotonic()
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
            since = time.monotonic()
            while not (self._stopping or self._done_at >= since or self._has(kid)):
                if not self._is_fetching or deadline is None:  # else the current fetch may bring the key
                    self._wanted_at = max(self._wanted_at, since)
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
        if not self._is_fetching and self._pause_left() >= left:
            return False
        self._changed.wait(left)
        return True

    def _has(self, kid: str | None) -> bool:
        return self._keys is not None and any(kid in (None, key.kid) for key in self._keys)

    def _pause_left(self) -> float:
        """Return the seconds until the thread may fetch again for an unknown key."""
        if self._demanded_at > self._done_at:
            return 0.0
        return self._began_at + self._pause - time.monotonic()

    def load(self, deadline: Deadline) -> None:
        """Fetch the set in the calling thread, without :meth:`start`. Blocks until the deadline.

        :raises OSError, TransportClosed, ValueError: as :func:`.fetch`, and if it is not a JWK Set.
        """
        self._take(self._fetch(deadline, self._watch))

    def _take(self, raw: bytes) -> None:
        """Use a set from now on.

        :raises ValueError: if it is not a JWK Set.
        """
        if raw != self._raw:
            keys = parse_jwks(raw, self._algorithms, symmetric=False)
            with self._changed:
                self._keys, self._raw = keys, raw
                self._changed.notify_all()

    def _run(self) -> None:
        while (since := self._await_turn()) is not None:
            before = self._keys
            failure: Exception | None = None
            try:
                self._obtain(since)
            except (OSError, ValueError, TransportClosed) as exc:
                failure = exc
            except Exception as exc:
                logger.exception("fetching keys failed")  # a bug, which must not end the thread
                failure = exc
            self._finish(failure, new=self._keys is not before)

    def _obtain(self, since: float) -> None:
        """Take the set that another process has fetched, or fetch it, for others, too.

        :param since: what was fetched before is too old.
        """
        copy = self._copy()
        waiting = Deadline(MOST_SECONDS)
        fetched = borrowed(copy, since, lambda seconds: self._rest(seconds, waiting))
        if fetched and self._adopt(fetched.value):
            self._note_fetch(fetched.after, fetched.before)
            return
        began = time.monotonic()
        self._note_fetch(began, began)
        try:
            self.load(Deadline(_FETCH_SECONDS))
        except BaseException:
            copy.give_up()
            raise
        assert self._raw is not None
        copy.keep(self._raw, time.monotonic() - began)

    def _adopt(self, raw: bytes) -> bool:
        """Use a set of another process, if it is one."""
        try:
            if len(raw) > _MAX_SIZE:
                raise ValueError("it is too long")
            self._take(raw)
        except ValueError as exc:
            logger.warning("other processes have no JWK Set of %s: %s", self._what, exc)
            return False
        return True

    def _rest(self, seconds: float, waiting: Deadline) -> bool:
        """Wait while another process fetches the set; return whether that takes too long."""
        with self._changed:
            if self._changed.wait_for(lambda: self._stopping, seconds):
                raise TransportClosed("the proxy is stopping")
        return waiting.passed

    def _note_fetch(self, after: float, before: float) -> None:
        """Take note when a fetch began, which nobody knows better than between these two times."""
        with self._changed:
            self._began_at, self._fetch_after = before, after

    def _await_turn(self) -> float | None:
        """Wait until a fetch is due. Return since when another process may have done it; None to end."""
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                due, since = self._plan(now)
                if due <= now:
                    self._is_fetching = True
                    self._began_at = self._fetch_after = now
                    return since
                self._changed.wait(due - now)
            return None

    def _plan(self, now: float) -> tuple[float, float]:
        """Return when the next fetch is due, and since when another process may have done it."""
        if self._demanded_at > self._done_at:
            return now, self._demanded_at
        due = self._began_at + self._next_interval()
        since = max(self._began_at, now - self._interval)
        if self._began_at == _NEVER:
            since = now - self._pause  # a restart brings new keys, and ends old ones
        if self._wanted_at > self._done_at and self._began_at + self._pause < due:
            due, since = self._began_at + self._pause, now - self._pause
        return due, since

    def _next_interval(self) -> float:
        """Return the seconds to the next fetch: fewer after a failure, then doubled up to the interval."""
        if not self._failures:
            return self._interval
        return min(self._interval, self._pause * (1 << min(self._failures, 10)))

    def _finish(self, failure: Exception | None, *, new: bool) -> None:
        with self._changed:
            failures, self._failures = self._failures, self._failures + 1 if failure else 0
            self._socket = None
            self._done_at = self._fetch_after
            self._is_fetching = False
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
