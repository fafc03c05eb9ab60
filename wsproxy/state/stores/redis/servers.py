"""Makes connections to the server of a place: by itself, by Sentinels, or to a node of a Cluster."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.credentials import CredentialProvider
from redis.retry import Retry

from ....net.tls_context import ClientTLS
from ..places import CLUSTER, SENTINEL, StatePlace
from .finders import ClusterNodes, Finder, Sentinels

__all__ = ["Servers", "servers_of"]


class _BoundedSocket:
    """A socket whose answers are bounded as a whole: a server could send them byte by byte for ever.

    :ivar until: when an answer has to be complete, by :func:`time.monotonic`; None for no bound.
    """

    def __init__(self, sock: Any, until: float | None) -> None:
        self._sock = sock
        self.until = until
        # Each call needs these; to look for them in __getattr__ would take as long as the rest.
        self.sendall, self.gettimeout, self.settimeout = sock.sendall, sock.gettimeout, sock.settimeout

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def recv(self, *arguments: int) -> Any:
        self._bound()
        return self._sock.recv(*arguments)

    def recv_into(self, *arguments: Any) -> Any:
        self._bound()
        return self._sock.recv_into(*arguments)

    def _bound(self) -> None:
        if self.until is not None:
            left = self.until - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            if left < 0.9 * (self.gettimeout() or math.inf):
                self.settimeout(left)


class _Bounded:
    """Part of a connection of redis-py: its sockets are bounded, from the first one on.

    :ivar until: when the connection has to be made; see :class:`_BoundedSocket`.
    """

    until: float | None = None

    def _connect(self) -> Any:
        connect: Any = super()
        return _BoundedSocket(connect._connect(), self.until)


class _PlainConnection(_Bounded, Connection):
    pass


class _UnixConnection(_Bounded, UnixDomainSocketConnection):
    pass


_plain: Any = _PlainConnection  # redis-py has no types for these
_unix: Any = _UnixConnection


class Servers(NamedTuple):
    """What makes connections.

    :ivar new: returns a connection of redis-py that is not open. A pool of redis-py would try again by
        itself, and knows no deadline.
    :ivar place: where they go, without user name and password.
    :ivar finder: says to which host they go; None if that is known.
    """

    new: Callable[[], Any]
    place: str
    finder: Finder | None = None


def servers_of(
    place: StatePlace, key: str, tls: ClientTLS | None, password: Callable[[], str] | None
) -> Servers:
    """Return what makes connections to a Redis. Connects to nothing.

    :param key: one whose slot decides which node of a Cluster it is.
    :param tls: for a place with TLS.
    :param password: returns the password for each new connection; None without authentication.
    """
    plain = {"protocol": 2, "retry": Retry(NoBackoff(), 0)}
    account = {"credential_provider": _Credentials(place.user, password)} if password else {}
    options: dict[str, Any] = {**plain, **account, "db": place.db}

    def new_to(host: str, port: int, with_account: bool = True) -> Any:
        more = options if with_account else plain
        return _TLSConnection(tls, host=host, port=port, **more) if tls else _plain(host, port, **more)

    if place.path:
        return Servers(lambda: _unix(path=place.path, **options), str(place))
    host, port = place.hosts[0]
    finder: Finder | None = None
    if place.kind == SENTINEL:
        finder = Sentinels(place.hosts, place.service, new_to)
    elif place.kind == CLUSTER:
        finder = ClusterNodes(place.hosts, key, new_to)
    return Servers(lambda: new_to(host, port), str(place), finder)


class _TLSConnection(_Bounded, SSLConnection):
    """With a context of ours, which trusts the given authorities and no others."""

    def __init__(self, tls: ClientTLS, **options: Any) -> None:
        super().__init__(**options)
        self._tls = tls

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        return self._tls.context().wrap_socket(sock, server_hostname=self.host)


class _Credentials(CredentialProvider):
    """What redis-py asks before each AUTH."""

    def __init__(self, user: str, ask: Callable[[], str]) -> None:
        self._user = user
        self._ask = ask

    def get_credentials(self) -> tuple[str, str] | tuple[str]:
        password = self._ask()
        return (self._user, password) if self._user else (password,)
