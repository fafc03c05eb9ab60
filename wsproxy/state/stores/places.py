"""Where the state that processes share is kept, as the setting ``state`` says it. No I/O."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import unquote

__all__ = [
    "CLUSTER",
    "LOCAL",
    "MEMORY",
    "MOST_PATH_BYTES",
    "REDIS",
    "SENTINEL",
    "StatePlace",
    "StateRules",
    "place_faults",
]

MEMORY, LOCAL, REDIS, SENTINEL, CLUSTER = "memory", "local", "redis", "sentinel", "cluster"

MOST_PATH_BYTES = 100
"""Of a Unix socket. It is less than ``sockaddr_un`` holds, because a longer name is bound first."""

_REDIS_PORT, _SENTINEL_PORT = 6379, 26379
_MOST_DATABASES = 10_000

_URL = re.compile(r"(?i:(rediss?(?:\+unix|\+sentinel|\+cluster)?)://)(.*)", re.DOTALL)
_REST = re.compile(r"(?:([^@/?#]*)@)?([^@/?#]*)([^?#]*)(?:\?([^#]*))?")
_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,9}))?")

_FORMS = {
    "memory": "memory",
    "local:": "local:PATH",
    "redis://": "redis://HOST:PORT/DB",
    "rediss://": "rediss://HOST:PORT/DB",
    "redis+unix://": "redis+unix:///PATH",
    "redis+sentinel://": "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE",
    "rediss+sentinel://": "rediss+sentinel://HOST:PORT,HOST:PORT/SERVICE",
    "redis+cluster://": "redis+cluster://HOST:PORT,HOST:PORT",
    "rediss+cluster://": "rediss+cluster://HOST:PORT,HOST:PORT",
}
_MEANT = {"unix://": "redis+unix://", "valkey://": "redis://", "valkeys://": "rediss://", "local": "local:"}
_SIMILAR = 0.7


@dataclass(frozen=True)
class StatePlace:
    """One place.

    :ivar kind: :data:`MEMORY`, :data:`LOCAL`, or how the Redis is found: :data:`REDIS`, :data:`SENTINEL`,
        :data:`CLUSTER`.
    :ivar path: of the Unix socket; "" for none.
    :ivar hosts: names or addresses with ports: of the server, of the Sentinels, or of some nodes.
    :ivar tls: whether the connections use TLS.
    :ivar user: name of the ACL user; "" for the default one.
    :ivar password: "" for none.
    :ivar service: what the Sentinels call the primary.
    :ivar db: number of the database.
    """

    kind: str
    path: str = ""
    hosts: tuple[tuple[str, int], ...] = ()
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    service: str = ""
    db: int = 0

    @classmethod
    def parse(cls, text: str) -> StatePlace:
        """Parse the value of the setting.

        :raises ValueError: if it is wrong. Its text says what it must be, and quotes no credential.
        """
        if text == MEMORY:
            return cls(MEMORY)
        kind, colon, path = text.partition(":")
        if kind == LOCAL and colon:
            return cls(LOCAL, path=_socket_path(path, "local:/run/wsproxy/state"))
        if found := _URL.fullmatch(text):
            return _of_url(found[1].lower(), found[2])
        raise ValueError(_unknown(text))

    @property
    def is_redis(self) -> bool:
        """Whether it is a Redis, however it is found."""
        return self.kind not in (MEMORY, LOCAL)

    def __str__(self) -> str:
        """What people may see: without user and password."""
        if self.kind == MEMORY:
            return MEMORY
        if self.kind == LOCAL:
            return f"{LOCAL}:{self.path}"
        scheme = "rediss" if self.tls else "redis"
        if self.path:
            return f"{scheme}+unix://{self.path}" + (f"?db={self.db}" if self.db else "")
        form = "" if self.kind == REDIS else f"+{self.kind}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        service = f"/{self.service}" if self.service else ""
        return f"{scheme}{form}://{hosts}{service}" + (f"/{self.db}" if self.db else "")


@dataclass(frozen=True)
class StateRules:
    """Where the state that processes share is kept, and what holds for it.

    :ivar counts_alone: whether a process without the store counts for itself. Else it admits nobody.
    :ivar lease: seconds after which the store forgets a process that is silent.
    :ivar file: of the revocations of ``memory``; None for none.
    :ivar replica: name of this replica for people; "" for the host's name.
    :ivar group: name or number of the group that shares the local store; None for none.
    :ivar prefix: begins the names of all keys in a Redis.
    :ivar ca_file: authorities for TLS to a Redis; None for those of the system.
    :ivar password_file: of a Redis; None for none.
    """

    place: StatePlace = StatePlace(MEMORY)
    counts_alone: bool = False
    lease: float = 15.0
    file: str | None = None
    replica: str = ""
    group: str | None = None
    prefix: str = "wsproxy"
    ca_file: str | None = None
    password_file: str | None = None

    @property
    def is_shared(self) -> bool:
        """Whether other processes may have the same state."""
        return self.place.kind != MEMORY


def place_faults(place: StatePlace, given: Collection[str], workers: int) -> list[str]:
    """Return the faults of settings that do not fit the place.

    :param given: the names of the settings that do not have their defaults.
    :param workers: how many processes serve.
    """
    of_redis, of_tls = "a URL such as redis://HOST:6379/0", "a URL such as rediss://HOST:6379/0"
    needs = {
        "state_file": (place.kind == MEMORY, MEMORY),
        "state_group": (place.kind == LOCAL, "local:PATH"),
        "state_password_file": (place.is_redis, of_redis),
        "state_prefix": (place.is_redis, of_redis),
        "state_ca_file": (place.tls, of_tls),
    }
    faults = [
        f"{name} is set but state is {place}; set state to {needed}, or leave {name} out"
        for name, (fits, needed) in needs.items()
        if not fits and name in given
    ]
    if "state_file" in given and workers > 1:
        faults.append(
            f"state_file is set, but workers is {workers}; set state to local:PATH or to a Redis, which keep "
            "revocations themselves, and leave state_file out"
        )
    if place.password and "state_password_file" in given:
        faults.append("state has a password, and state_password_file is set; leave one out")
    return faults


def _unknown(text: str) -> str:
    scheme = re.match(r"[A-Za-z+_-]*(?:://|:|\Z)", text)
    given = scheme[0].lower() if scheme else ""
    close = difflib.get_close_matches(given, [*_FORMS, *_MEANT], 1, _SIMILAR)
    if close:
        return f"did you mean {_FORMS[_MEANT.get(close[0], close[0])]}?"
    return "it must be memory, local:PATH, or a URL such as redis://HOST:6379/0"


def _socket_path(path: str, example: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"the socket's path must begin with /, such as {example}")
    # A byte that is not UTF-8 is one character in os.environ, which errors="replace" counts as one byte.
    if "\0" in path or path.endswith("/") or len(path.encode(errors="replace")) > MOST_PATH_BYTES:
        raise ValueError(f"a socket's path has at most {MOST_PATH_BYTES} bytes, and names no directory")
    return path


def _of_url(scheme: str, rest: str) -> StatePlace:
    form = scheme.partition("+")[2] or REDIS
    found = _REST.fullmatch(rest)
    outside = rest if found is None else f"{found[3]}{found[4]}"
    if "@" in outside and form != "unix":
        # Otherwise a part of a password might count as the host, and be shown.
        raise ValueError("percent-encode the characters @ / ? # of user and password, such as %40 for @")
    if found is None:
        raise ValueError("leave out what begins with #")
    user, password = (unquote(part) for part in (found[1] or "").partition(":")[::2])
    tls = scheme.startswith("rediss")
    places, path, query = found[2], found[3], found[4]
    if form == "unix":
        if tls or places:
            raise ValueError("it must be redis+unix:///PATH, with three slashes and without TLS")
        path = _socket_path(unquote(path), "redis+unix:///run/redis/redis.sock")
        return StatePlace(REDIS, path=path, user=user, password=password, db=_db_of_query(query))
    if query is not None:
        raise ValueError("leave out what begins with ?; settings of their own have the rest")
    port = _SENTINEL_PORT if form == SENTINEL else _REDIS_PORT
    hosts = tuple(_host(place, port) for place in places.split(","))
    if form == REDIS and len(hosts) > 1:
        raise ValueError("it names several hosts; use redis+sentinel:// or redis+cluster://")
    service, db = _service_and_db(form, path)
    return StatePlace(form, hosts=hosts, tls=tls, user=user, password=password, service=service, db=db)


def _host(text: str, default: int) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None:
        raise ValueError("it must have a host with a port, such as redis.example:6379")
    port = int(found[3] or default)
    if not 0 < port < 65536:
        raise ValueError("its port must be 1 to 65535")
    return found[1] or found[2], port


def _service_and_db(form: str, path: str) -> tuple[str, int]:
    if form == SENTINEL:
        service, _, db = path.removeprefix("/").partition("/")
        if not re.fullmatch(r"[A-Za-z0-9._-]+", service):
            raise ValueError("name the service after the Sentinels, such as /mymaster")
        return service, _db(db)
    db = path.removeprefix("/")
    if form == CLUSTER and db:
        raise ValueError("a Cluster has no databases; leave out what follows the ports")
    return "", _db(db)


def _db_of_query(query: str | None) -> int:
    if query is None:
        return 0
    name, _, value = query.partition("=")
    if name != "db":
        raise ValueError("only ?db=NUMBER may follow the path")
    return _db(value)


def _db(text: str) -> int:
    if text and not (re.fullmatch("[0-9]{1,5}", text) and int(text) < _MOST_DATABASES):
        raise ValueError(f"its database must be a number, 0 to {_MOST_DATABASES - 1}")
    return int(text or 0)
