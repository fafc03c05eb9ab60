"""The connections to a Redis, and the calls of its scripts."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from ....exceptions import StoreUnavailable
from ....net.sockets import bound_waits
from ....net.tls_context import ClientTLS
from ....runtime.deadline import Deadline
from ....runtime.forks import in_forked_child
from ....runtime.logs import get_logger
from ..places import StatePlace
from .arguments import Argument
from .finders import LINK_ERRORS, Finder, ServerNotFound, unadorned
from .scripts import Script
from .servers import servers_of

__all__ = ["RedisConnection", "RedisLink", "advice", "quotable"]

T = TypeVar("T")

logger = get_logger("wsproxy.state.redis")

_SECONDS = 1.0
"""How long a call may take in all."""

_MOST = 16  # connections at a time; a call takes less than a millisecond of each
_STEPS = 4  # of making a connection, each of which may take this part of the time: connect, TLS, AUTH, SELECT

_FINDING = 0.6  # of the time may pass until a server is found

_OTHER_SCHEMA = re.compile(r"wsproxy-schema=(\d+)")  # within what Redis says of the script and the line

_MOVING = "its Cluster moves the keys to another node; wait until that is done"

_ADVICE: tuple[tuple[type[Exception], str], ...] = (
    (AuthenticationError, "it refuses the user name or the password; set those that Redis knows"),
    (NoPermissionError, "its ACL forbids a command that wsproxy needs; allow the user all of them"),
    (OutOfMemoryError, "it has no memory left; raise maxmemory"),
    (ReadOnlyError, "it is a replica; name the primary, or the Sentinels"),
    (AskError, _MOVING),
    (TryAgainError, _MOVING),
    (ClusterDownError, "its Cluster is down; see what CLUSTER INFO says"),
    (BusyLoadingError, "it is loading its data; wait until it has"),
    (TimeoutError, "it has not answered in time; see whether it is overloaded, and the network"),
    (ConnectionError, "it cannot be reached; see whether it runs there, and the network"),
)  # the first that fits counts


_MOST_TEXT = 200
_ARGUMENTS = re.compile(r"\W? with args\b.*", re.DOTALL)

_CODES: dict[str, type[Exception]] = {
    "-NOPERM": NoPermissionError,
    "-OOM": OutOfMemoryError,
    "-READONLY": ReadOnlyError,
}


class RedisConnection:
    """One connection, used by one thread at a time.

    :param raw: of redis-py, not open.
    :param finder: says where it goes; None if it knows.
    :ivar run_id: of the server at its other end.
    :ivar is_used: whether it has brought an answer before, so it may have been closed since.
    """

    def __init__(self, raw: Any, finder: Finder | None = None) -> None:
        self._raw = unadorned(raw)
        self._finder = finder
        self.run_id = ""
        self.is_used = False

    def open(self, deadline: Deadline) -> None:
        """Find the server, connect, authenticate, and ask whom this is. Blocks up to the deadline."""
        raw = self._raw
        if self._finder:
            raw.host, raw.port = self._finder.find(Deadline(deadline.remaining() * _FINDING))
        raw.socket_connect_timeout = raw.socket_timeout = deadline.remaining() / _STEPS
        raw.until = time.monotonic() + deadline.remaining()
        try:
            raw.connect()
        except LINK_ERRORS:
            if self._finder:
                self._finder.forget()
            raise
        info = self.ask(deadline, "INFO", "server")
        fields = dict(line.partition(":")[::2] for line in info.decode().splitlines())
        self.run_id = fields.get("run_id", "")

    def ask(self, deadline: Deadline, *command: Argument) -> Any:
        """Send a command, and return the answer. Blocks up to the deadline."""
        self.send(deadline, *command)
        return self.read()

    def send(self, deadline: Deadline, *command: Argument) -> None:
        """Send a command. What is read then has to come before the deadline."""
        sock = self._raw._sock
        if sock is None:
            raise ConnectionError("closed")
        seconds = deadline.remaining()
        bound_waits(sock, seconds)
        sock.until = time.monotonic() + seconds
        self._raw.send_packed_command([_packed(command)], check_health=False)

    def read(self) -> Any:
        """Return an answer. Blocks as :meth:`send` says."""
        return self._raw.read_response()

    def has_answer(self, seconds: float) -> bool:
        """Wait for something to read, that long at most; return whether there is."""
        if self._raw._sock is None:
            raise ConnectionError("closed")
        self._raw._sock.until = None
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


def _packed(command: Sequence[Argument]) -> bytes:
    """Return a command in the protocol of Redis. Does what redis-py does, in a third of the time."""
    words = [word.encode() if isinstance(word, str) else b"%a" % word for word in command]
    return b"*%d\r\n%b" % (len(words), b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]))


class RedisLink:
    """The connections of one process. Any thread may use it.

    It makes them when they are needed, and anew in a forked child.

    :param place: a Redis.
    :param prefix: begins the names of all keys, so deployments can share a server.
    :param tls: for a place with TLS.
    :param password: returns the password. Each new connection asks, so it may change. None for the place's.
    :ivar root: what the names of all keys begin with; the version of the schema follows.
    """

    def __init__(
        self,
        place: StatePlace,
        prefix: str = "wsproxy",
        tls: ClientTLS | None = None,
        password: Callable[[], str] | None = None,
    ) -> None:
        # The braces make it one hash tag, so that all keys are on one node of a Cluster.
        self.root = f"{{{prefix}}}:"
        if password is None and (place.user or place.password):
            password = lambda: place.password  # noqa: E731
        self._servers = servers_of(place, self.root, tls, password)
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
        # Names of epochs that may begin, which never come again.
        self._name = secrets.token_hex(8)
        self._calls = count()

    # Calls

    @property
    def common(self) -> str:
        """What the names begin with that are the same in every schema."""
        return f"{self.root}0:"

    def call(self, script: Script, arguments: Sequence[Argument]) -> bytes | int:
        """Run a script, and return what it returns; or the schema to go on with, if it has done nothing.

        Blocks for one second at most.

        :raises StoreUnavailable: without an answer.
        """

        return self.use(lambda connection, deadline: self._run(connection, deadline, script, arguments))

    def _run(
        self, connection: RedisConnection, deadline: Deadline, script: Script, arguments: Sequence[Argument]
    ) -> bytes | int:
        name = f"{script.newest}.{self._name}-{next(self._calls)}"
        fixed = (1, f"{self.root}{script.schema}:", connection.run_id, name)
        try:
            try:
                answer: bytes = connection.ask(deadline, "EVALSHA", script.digest, *fixed, *arguments)
            except NoScriptError:
                answer = connection.ask(deadline, "EVAL", script.text, *fixed, *arguments)
        except ResponseError as exc:
            if found := _OTHER_SCHEMA.search(str(exc)):
                return int(found[1])
            raise
        return answer

    def call_and_wait(self, script: Script, arguments: Sequence[Argument]) -> bytes | int:
        """Do the same, and wait until a replica has it, if there are any. Warns if none says so in time."""

        def run(connection: RedisConnection, deadline: Deadline) -> tuple[bytes | int, bool]:
            answer = self._run(connection, deadline, script, arguments)
            if isinstance(answer, int):
                return answer, True
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
        except (_Stale, ServerNotFound, *LINK_ERRORS) as exc:
            raise self._gone(exc.reason if isinstance(exc, _Stale) else exc) from None
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
        except MovedError as exc:
            if self._servers.finder:
                self._servers.finder.moved(exc.host, exc.port)
            raise _Stale(exc) from None
        except (ConnectionError, ReadOnlyError) as exc:
            if was_used and not isinstance(exc, BusyLoadingError):
                raise _Stale(exc) from None
            raise
        finally:
            self._put_back(connection, is_sound)

    # Connections

    def new(self) -> RedisConnection:
        """Return a new connection that is not open, and does not count."""
        return RedisConnection(self._servers.new(), self._servers.finder)

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

    # Whether it is there

    def _gone(self, exc: Exception) -> StoreUnavailable:
        """Return what to raise, and log it once."""
        text = f"the Redis at {self.place} is no help: {advice(exc)}"
        self._note(False, text)
        return StoreUnavailable(text)

    def _note(self, is_up: bool, text: str) -> None:
        if self._is_up is is_up:
            return
        with self._free:
            was_up, self._is_up = self._is_up, is_up
        if is_up and was_up is False:
            logger.info("the Redis at %s answers again", self.place)
        elif not is_up and was_up is not False:
            logger.error("%s", text)


class _Stale(Exception):
    """A connection is closed that was used before, or leads to a server that no longer decides."""

    def __init__(self, reason: Exception) -> None:
        self.reason = reason


def advice(exc: Exception) -> str:
    """Return what is wrong with a Redis, and what to do."""
    if isinstance(exc, ServerNotFound):
        return str(exc)
    if "CERTIFICATE_VERIFY_FAILED" in str(exc):
        return "its certificate is not to be trusted; name the file of its CA, and the host that it is for"
    for kind, advice in _ADVICE:
        if isinstance(exc, kind):
            return advice
    if isinstance(exc, OSError):  # the deadline has passed; redis-py has errors of its own for the rest
        return "it has not answered in time; see whether it is overloaded, and the network"
    # The error of a command in a script: before version 7 it stands within another one.
    for code, kind in _CODES.items():
        if code in str(exc):
            return dict(_ADVICE)[kind]
    return f"it says {quotable(str(exc))!r}; wsproxy needs Redis 6.2 or later, or Valkey"


def quotable(text: str) -> str:
    """Return what a server says, without the arguments of a command: those of AUTH have the password."""
    return _ARGUMENTS.sub("", text)[:_MOST_TEXT]
