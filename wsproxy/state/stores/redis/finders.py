"""Finds the server that decides: the primary that Sentinels name, or the node of a Cluster with the keys."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from redis.crc import key_slot
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from ....runtime.deadline import Deadline

__all__ = [
    "LINK_ERRORS",
    "RESPONSE_ERRORS",
    "ClusterNodes",
    "Finder",
    "Sentinels",
    "ServerNotFound",
    "unadorned",
]

LINK_ERRORS = (RedisError, OSError)
"""What a connection raises."""

RESPONSE_ERRORS = (ResponseError,)
"""What it raises if the server refuses a command. It stays usable."""

_ONE_SECONDS = 0.2  # for which one Sentinel or node is asked
_MOST_NODES = 50  # that are remembered

Address = tuple[str, int]
_NewTo = Callable[[str, int, bool], Any]


class ServerNotFound(Exception):
    """Nobody says where the server is. The text says why, and what to do."""


class Finder(Protocol):
    """Any thread may use it."""

    def find(self, deadline: Deadline) -> Address:
        """Return where the server is. Blocks until the deadline at most.

        :raises ServerNotFound: if nobody knows.
        :raises LINK_ERRORS: if those who are asked refuse to say.
        """
        ...

    def moved(self, host: str, port: int) -> None:
        """Take note of what a server says of where the keys are now. Does not block."""
        ...

    def forget(self) -> None:
        """Ask anew the next time, because the server was not there. Does not block."""
        ...


def unadorned(raw: Any) -> Any:
    """Return a connection of redis-py that does not tell its name, which takes two round trips."""
    raw.lib_name = raw.lib_version = raw.driver_info = None
    return raw


def _asked(raw: Any, seconds: float, *command: str | int) -> Any:
    """Send a command on a new connection, and return the answer. Blocks for that long, more or less."""
    unadorned(raw)
    raw.socket_connect_timeout = raw.socket_timeout = seconds
    raw.until = time.monotonic() + 2 * seconds
    try:
        raw.connect()
        raw.send_command(*command, check_health=False)
        return raw.read_response()
    finally:
        with suppress(*LINK_ERRORS):
            raw.disconnect()


class _Several:
    """Servers of which any one may know. The one that answered last is asked first."""

    def __init__(self, hosts: Sequence[Address], new_to: _NewTo) -> None:
        self._new_to = new_to
        # Any thread may assign it; whichever comes last, all of them are asked.
        self._hosts = tuple(hosts)

    def _any(self, deadline: Deadline, ask: Callable[[Address, float], Any], none: str) -> Any:
        """Return the first answer that is not None.

        :param none: what to say if nobody answers.
        """
        refusal: Exception | None = None
        for host in self._hosts:
            try:
                answer = ask(host, min(_ONE_SECONDS, deadline.remaining()))
            except (AuthenticationError, NoPermissionError) as exc:
                refusal = exc
            except LINK_ERRORS as exc:
                if deadline.passed:
                    break
                refusal = refusal or (exc if "CERTIFICATE_VERIFY_FAILED" in str(exc) else None)
            else:
                if answer is not None:
                    self._hosts = (host, *(other for other in self._hosts if other != host))
                    return answer
        if refusal:
            raise refusal
        raise ServerNotFound(none)


class Sentinels(_Several):
    """The Sentinels of a service.

    :param new_to: makes a connection to a host and port, with authentication or without.
    """

    def __init__(self, hosts: Sequence[Address], service: str, new_to: _NewTo) -> None:
        super().__init__(hosts, new_to)
        self._service = service

    def find(self, deadline: Deadline) -> Address:
        """See :meth:`.Finder.find`. Each new connection asks."""
        none = f"no Sentinel says where {self._service} is; see whether they run there, and know that name"
        found: Address = self._any(deadline, self._ask, none)
        return found

    def _ask(self, host: Address, seconds: float) -> Address | None:
        command = "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service
        try:
            answer = _asked(self._new_to(*host, False), seconds, *command)
        except AuthenticationError:
            # Most Sentinels ask for no password, and refuse one. Those that do are given that of the Redis.
            answer = _asked(self._new_to(*host, True), seconds, *command)
        return (answer[0].decode(), int(answer[1])) if answer else None

    def moved(self, host: str, port: int) -> None:
        """See :meth:`.Finder.moved`."""

    def forget(self) -> None:
        """See :meth:`.Finder.forget`."""


class ClusterNodes(_Several):
    """The nodes of a Cluster.

    :param key: one whose slot it is about.
    :param new_to: makes a connection to a host and port.
    """

    def __init__(self, hosts: Sequence[Address], key: str, new_to: _NewTo) -> None:
        super().__init__(hosts, new_to)
        self._given = tuple(hosts)
        self._slot = key_slot(key.encode())
        self._lock = threading.Lock()  # guards the owner; nobody waits with it
        self._owner: Address | None = None

    def find(self, deadline: Deadline) -> Address:
        """See :meth:`.Finder.find`. The answer is kept until :meth:`moved` or :meth:`forget`."""
        with self._lock:
            owner = self._owner
        if owner is None:
            none = "no node of the Cluster says where the keys are; see whether it runs, and has all slots"
            owner = self._any(deadline, self._ask, none)
            with self._lock:
                self._owner = owner
        return owner

    def _ask(self, host: Address, seconds: float) -> Address | None:
        found: Address | None = None
        others: list[Address] = []
        for first, last, *nodes in _asked(self._new_to(*host, True), seconds, "CLUSTER", "SLOTS"):
            places = [(place, node[1]) for node in nodes if (place := _host(node[0], host[0]))]
            others += places
            if first <= self._slot <= last and places:
                found = places[0]  # the primary comes first
        # Those that were named stay: the others may all be replaced.
        self._hosts = tuple(dict.fromkeys((*self._given, *others[:_MOST_NODES])))
        return found

    def moved(self, host: str, port: int) -> None:
        """See :meth:`.Finder.moved`."""
        with self._lock:
            self._owner = (host, port) if host else None

    def forget(self) -> None:
        """See :meth:`.Finder.forget`."""
        with self._lock:
            self._owner = None


def _host(said: bytes | None, asked: str) -> str:
    """Return what a node says of a host; "" if it does not know it."""
    if not said:  # the node that was asked
        return asked
    return "" if said == b"?" else said.decode()
