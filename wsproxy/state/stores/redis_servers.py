"""Finds the server that a URL names, by itself or by Sentinels, and makes connections to it."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from ...exceptions import ConfigError

__all__ = ["Servers", "servers_of"]

_sentinel: Any = Sentinel  # redis-py has no types for these two
_pool: Any = SentinelConnectionPool

_SENTINEL_SECONDS = 0.2  # for which one Sentinel is asked


class Servers(NamedTuple):
    """What makes connections.

    :ivar pool: only its ``make_connection`` is used: by itself it would try again, and know no deadline.
    :ivar place: where they go, without user name and password.
    :ivar sentinels: None without Sentinels; its clients have to be closed.
    """

    pool: Any
    place: str
    sentinels: Any = None

    def close(self) -> None:
        """Close the connections to the Sentinels."""
        for client in self.sentinels.sentinels if self.sentinels else ():
            client.close()


def servers_of(url: str, options: dict[str, Any]) -> Servers:
    """Return what makes connections to the server of a URL.

    :param url: ``redis://``, ``rediss://`` and ``unix://`` as redis-py has them, or
        ``redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/SERVICE[/DB]``.
    :raises ConfigError: if the URL is wrong. Its text has no password in it.
    """
    settings = {"protocol": 2, "retry": Retry(NoBackoff(), 0), **options}
    try:
        parts = urlsplit(url)
        if parts.scheme.endswith("+sentinel"):
            return _by_sentinels(parts, settings)
        pool = ConnectionPool.from_url(url, **settings)
    except (ValueError, TypeError):
        raise ConfigError(["the URL of the Redis is wrong; write one like redis://HOST:6379/0"]) from None
    found = pool.connection_kwargs
    place = found.get("path") or f"{found.get('host', 'localhost')}:{found.get('port', 6379)}"
    return Servers(pool, str(place))


def _by_sentinels(parts: SplitResult, settings: dict[str, Any]) -> Servers:
    account, _, places = parts.netloc.rpartition("@")
    hosts = [
        (urlsplit(f"//{place}").hostname, urlsplit(f"//{place}").port or 26379) for place in places.split(",")
    ]
    service, _, db = parts.path.strip("/").partition("/")
    if not service or not all(host for host, _ in hosts):
        raise ValueError("incomplete")
    user, _, password = account.partition(":")
    account_settings = {"username": unquote(user) or None, "password": unquote(password) or None}
    asking = {"socket_timeout": _SENTINEL_SECONDS, "socket_connect_timeout": _SENTINEL_SECONDS}
    sentinels = _sentinel(hosts, sentinel_kwargs={**asking, "retry": Retry(NoBackoff(), 0), "protocol": 2})
    known = {name: value for name, value in account_settings.items() if value}
    is_tls = parts.scheme.startswith("rediss")
    pool = _pool(service, sentinels, ssl=is_tls, db=int(db or 0), **known, **settings)
    return Servers(pool, f"{service} of the Sentinels {places}", sentinels)
