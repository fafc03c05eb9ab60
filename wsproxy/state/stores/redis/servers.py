"""Makes connections to the server of a place: by itself, by Sentinels, or to a node of a Cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from ..places import SENTINEL, StatePlace

__all__ = ["Servers", "servers_of"]

_sentinel: Any = Sentinel  # redis-py has no types for these
_pool: Any = SentinelConnectionPool
_plain: Any = Connection
_tls: Any = SSLConnection
_unix: Any = UnixDomainSocketConnection

_SENTINEL_SECONDS = 0.2  # for which one Sentinel is asked


class Servers(NamedTuple):
    """What makes connections.

    :ivar new: returns a connection of redis-py that is not open. A pool of redis-py would try again by
        itself, and knows no deadline.
    :ivar place: where they go, without user name and password.
    :ivar close: closes the connections to Sentinels.
    """

    new: Callable[[], Any]
    place: str
    close: Callable[[], None] = lambda: None


def servers_of(place: StatePlace, options: dict[str, Any]) -> Servers:
    """Return what makes connections to a Redis. Connects to nothing.

    :param options: of redis-py's connections.
    """
    settings = {"protocol": 2, "retry": Retry(NoBackoff(), 0), "db": place.db, **options}
    if place.kind == SENTINEL:
        return _by_sentinels(place, settings)
    if place.path:
        return Servers(lambda: _unix(path=place.path, **settings), str(place))
    host, port = place.hosts[0]
    kind = _tls if place.tls else _plain
    return Servers(lambda: kind(host=host, port=port, **settings), str(place))


def _by_sentinels(place: StatePlace, settings: dict[str, Any]) -> Servers:
    asking = {"socket_timeout": _SENTINEL_SECONDS, "socket_connect_timeout": _SENTINEL_SECONDS}
    quick = {**asking, "retry": Retry(NoBackoff(), 0), "protocol": 2}
    sentinels = _sentinel(place.hosts, sentinel_kwargs=quick)
    pool = _pool(place.service, sentinels, ssl=place.tls, **settings)

    def close() -> None:
        for client in sentinels.sentinels:
            client.close()

    return Servers(pool.make_connection, str(place), close)
