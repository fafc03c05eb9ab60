"""The connections to a Redis, and the calls of its scripts."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from redis.credentials import CredentialProvider
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
)

from ....exceptions import StoreUnavailable
from ....runtime.deadline import Deadline
from ....runtime.forks import in_forked_child
from ....runtime.logs import get_logger
from ...store import SCHEMA
from ..places import StatePlace
from .arguments import Argument
from .scripts import Script
from .servers import servers_of

__all__ = ["LINK_ERRORS", "RedisConnection", "RedisLink"]

T = TypeVar("T")

logger = get_logger("wsproxy.state.redis")

LINK_ERRORS = (RedisError, OSError)
"""What a connection raises."""

_SECONDS = 1.0
"""How long a call may take in all."""

_MOST = 16  # connections at a time; a call takes less than a millisecond of each
_STEPS = 4  # of making a connection, each of which may take this part of the time: connect, TLS, AUTH, SELECT

_ADVICE: tuple[tuple[type[Exception], str], ...] = (
    (AuthenticationError, "it refuses the user name or the password; set those that Redis knows"),
    (NoPermissionError, "its ACL forbids a command that wsproxy needs; allow the user all of them"),
    (OutOfMemoryError, "it has no memory left; raise maxmemory"),
    (ReadOnlyError, "it is a replica; name the primary, or the Sentinels"),
    (BusyLoadingError, "it is loading its data; wait until it has"),
    (TimeoutError, "it has not answered in time; see whether it is overloaded, and the network"),
    (ConnectionError, "it cannot be reached; see whether it runs there, and the network"),
)  # the first that fits counts


class RedisConnection:
    """One connection, used by one thread at a time.

    :ivar run_id: of the server at its other end.
    :ivar is_used: whether it has brought an answer before, so it may have been closed since.
    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.run_id = ""
        self.is_used = False

    def open(self, deadline: Deadline) -> None:
        """Connect, authenticate, and ask whom this is. Blocks up to the deadline."""
        raw = self._raw
        raw.socket_connect_timeout = raw.socket_timeout = deadline.remaining() / _STEPS
        raw.lib_name = raw.lib_version = raw.driver_info = None  # two round trips to tell what nobody asks
        raw.connect()
        info = self.ask(deadline, "INFO", "server")
        fields = dict(line.partition(":")[::2] for line in info.decode().splitlines())
        self.run_id = fields.get("run_id", "")

    def ask(self, deadline: Deadline, *command: Argument) -> Any:
        """Send a command, and return the answer. Blocks up to the deadline."""
        self.send(deadline, *command)
        return self.read()

    def send(self, deadline: Deadline, *command: Argument) -> None:
        """Send a command. What is read then has to come before the deadline."""
        if self._raw._sock is None:
            raise ConnectionError("closed")
        self._raw._sock.settimeout(deadline.remaining())
        self._raw.send_command(*command, check_health=False)

    def read(self) -> Any:
        """Return an answer. Blocks as :meth:`send` says."""
        return self._raw.read_response()

    def has_answer(self, seconds: float) -> bool:
        """Wait for something to read, that long at most; return whether there is."""
        found: bool = self._raw.can_read(seconds)
        return found

    def interrupt(self) -> None:
        """Have the thread that waits for it fail at once. Any thread."""
        sock = self._raw._sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(2)  # SHUT_RDWR

    def close(self) -> None:
        """Close it. In a forked child this does nothing to the parent's."""
        self._raw.disconnect()


class RedisLink:
    """The connections of one process. Any thread may use it.

    It makes them when they are needed, and anew in a forked child.

    :param place: a Redis.
    :param prefix: begins the names of all keys, so deployments can share a server.
    :param ca_file: authorities for TLS; None for those of the system. Each new connection reads it.
    :param password: returns the password. Each new connection asks, so it may change. None for the place's.
    :ivar base: what the names of all keys begin with.
    """

    def __init__(
        self,
        place: StatePlace,
        prefix: str = "wsproxy",
        ca_file: str | None = None,
        password: Callable[[], str] | None = None,
    ) -> None:
        # The braces make it one hash tag, so that all keys are on one node of a Cluster.
        self.base = f"{{{prefix}}}:{SCHEMA}:"
        options: dict[str, Any] = {"ssl_ca_certs": ca_file} if place.tls else {}
        if password or place.user or place.password:
            ask = password or (lambda: place.password)
            options["credential_provider"] = _Credentials(place.user, ask)
        self._servers = servers_of(place, options)
        self.place = self._servers.place
        self._begin()
        in_forked_child(self, RedisLink._begin)

    def _begin(self) -> None:
        """Have no connections. The parent's are not this process's to close: it has them open."""
        self._free = threading.Condition()  # guards the four below
        self._idle: list[RedisConnection] = []
        self._taken: set[RedisConnection] = set()
        self._is_up: bool | None = None
        self._is_closed = False

    # Calls

    def call(self, script: Script, arguments: Sequence[Argument]) -> bytes:
        """Run a script, and return what it returns. Blocks for one second at most.

        :raises StoreUnavailable: without an answer.
        """

        return self.use(lambda connection, deadline: self._run(connection, deadline, script, arguments))

    def _run(
        self, connection: RedisConnection, deadline: Deadline, script: Script, arguments: Sequence[Argument]
    ) -> bytes:
        fixed = (1, self.base, connection.run_id, secrets.token_hex(8))
        try:
            answer: bytes = connection.ask(deadline, "EVALSHA", script.digest, *fixed, *arguments)
        except NoScriptError:
            answer = connection.ask(deadline, "EVAL", script.text, *fixed, *arguments)
        return answer

    def call_and_wait(self, script: Script, arguments: Sequence[Argument]) -> bytes:
        """Do the same, and wait until a replica has it, if there are any. Warns if none says so in time."""

        def run(connection: RedisConnection, deadline: Deadline) -> tuple[bytes, bool]:
            answer = self._run(connection, deadline, script, arguments)
            info = connection.ask(deadline, "INFO", "replication").decode()
            if "\nconnected_slaves:0" in info or "\nconnected_slaves:" not in info:
                return answer, True
            milliseconds = max(int(deadline.remaining() * 500), 1)
            return answer, connection.ask(deadline, "WAIT", 1, milliseconds) > 0

        answer, is_safe = self.use(run)
        if not is_safe:
            logger.warning(
                "no replica of the Redis at %s has confirmed a revocation in time: after a failover it is "
                "unknown until the members publish it again",
                self.place,
            )
        return answer

    def use(self, work: Callable[[RedisConnection, Deadline], T]) -> T:
        """Call ``work`` with a connection and the deadline, and return what it returns.

        If the connection was closed while nobody used it, it is called again with a new one.

        :raises StoreUnavailable: if it does not succeed within a second.
        """
        deadline = Deadline(_SECONDS)
        try:
            try:
                found = self._use_once(work, deadline)
            except _Stale:
                self._drop_idle()
                found = self._use_once(work, deadline)
        except LINK_ERRORS as exc:
            raise self._gone(exc) from None
        self._note(True, "")
        return found

    def _use_once(self, work: Callable[[RedisConnection, Deadline], T], deadline: Deadline) -> T:
        connection = self._take(deadline)
        was_used, is_sound = connection.is_used, False
        try:
            if not was_used:
                connection.open(deadline)
            found = work(connection, deadline)
            connection.is_used = is_sound = True
            return found
        except ConnectionError as exc:
            if was_used and not isinstance(exc, BusyLoadingError):
                raise _Stale from None
            raise
        finally:
            self._put_back(connection, is_sound)

    # Connections

    def new(self) -> RedisConnection:
        """Return a new connection that is not open, and does not count."""
        return RedisConnection(self._servers.new())

    def _take(self, deadline: Deadline) -> RedisConnection:
        with self._free:
            while not self._idle and len(self._taken) >= _MOST:
                self._free.wait(deadline.remaining())
            if self._is_closed:
                raise ConnectionError("closed")
            connection = self._idle.pop() if self._idle else self.new()
            self._taken.add(connection)
            return connection

    def _put_back(self, connection: RedisConnection, is_sound: bool) -> None:
        with self._free:
            self._taken.discard(connection)
            keep = is_sound and not self._is_closed
            if keep:
                self._idle.append(connection)
            self._free.notify()
        if not keep:
            connection.close()

    def _drop_idle(self) -> None:
        with self._free:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close all connections; those in use, when their calls end. Idempotent."""
        with self._free:
            self._is_closed = True
        self._drop_idle()
        self._servers.close()

    # Whether it is there

    def _gone(self, exc: Exception) -> StoreUnavailable:
        """Return what to raise, and log it once."""
        text = f"the Redis at {self.place} is no help: {_advice(exc)}"
        self._note(False, text)
        return StoreUnavailable(text)

    def _note(self, is_up: bool, text: str) -> None:
        with self._free:
            was_up, self._is_up = self._is_up, is_up
        if is_up and was_up is False:
            logger.info("the Redis at %s answers again", self.place)
        elif not is_up and was_up is not False:
            logger.error("%s", text)


class _Credentials(CredentialProvider):
    """What redis-py asks before each AUTH."""

    def __init__(self, user: str, ask: Callable[[], str]) -> None:
        self._user = user
        self._ask = ask

    def get_credentials(self) -> tuple[str, str] | tuple[str]:
        password = self._ask()
        return (self._user, password) if self._user else (password,)


class _Stale(Exception):
    """A connection that was used before is closed."""


def _advice(exc: Exception) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(exc):
        return "its certificate is not to be trusted; name the file of its CA, and the host that it is for"
    for kind, advice in _ADVICE:
        if isinstance(exc, kind):
            return advice
    if isinstance(exc, OSError):  # the deadline has passed; redis-py has errors of its own for the rest
        return "it has not answered in time; see whether it is overloaded, and the network"
    return f"it says {str(exc)[:200]!r}; wsproxy needs Redis 6.2 or later, or Valkey"
