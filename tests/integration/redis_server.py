"""A redis-server of a test's own, and the store in it with a clock that the test has."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis import Redis

from tests.state.conformance.case import LEASE
from tests.support.ports import free_port
from wsproxy.runtime.deadline import Deadline
from wsproxy.state.membership import Member, Publication
from wsproxy.state.store import Store
from wsproxy.state.stores.places import StatePlace
from wsproxy.state.stores.redis.link import RedisConnection, RedisLink
from wsproxy.state.stores.redis.scripts import Script, load_all_scripts
from wsproxy.state.stores.redis.store import RedisStore
from wsproxy.testing import LeakTestCase

__all__ = ["CLOCK", "REDIS_SERVER", "RedisCase", "RedisHarness", "RedisServer", "free_port_of_node"]

REDIS_SERVER = shutil.which("redis-server") or shutil.which("valkey-server")

_BEGIN = 1.7e9
CLOCK = "local function read_clock() return {tonumber(redis.call('GET', 'test-now')), 0} end\n"


def free_port_of_node() -> int:
    """Return a port that is free now, as is the one of the bus, which is 10,000 above."""
    while True:
        port = free_port()
        with socket.socket() as bus, suppress(OSError, OverflowError):
            bus.bind(("127.0.0.1", port + 10_000))
            return port


class RedisServer:
    """A server at a Unix socket in a directory of its own. It is ended by its process.

    :param prefix: a command that runs it, such as in another network namespace.
    """

    def __init__(self, *options: str, prefix: Sequence[str] = ()) -> None:
        assert REDIS_SERVER, "there is no redis-server"
        self.directory = Path(tempfile.mkdtemp(prefix="wsproxy-redis-"))
        self.socket = self.directory / "s"
        self.url = f"redis+unix://{self.socket}"
        self._options, self._prefix = options, prefix
        self.start()

    def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        fixed = ("--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.directory))
        quiet = ("--save", "", "--appendonly", "no", "--loglevel", "notice")
        command = [*self._prefix, str(REDIS_SERVER), *fixed, *quiet, *self._options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if "eady to accept connections" in line:
                return
        self.close()
        raise AssertionError("".join(lines))

    def client(self) -> Redis:
        """Return a client, which the caller closes."""
        return Redis(unix_socket_path=str(self.socket))

    def stop(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait(10)
        if self.process.stdout:
            self.process.stdout.close()
        self.socket.unlink(missing_ok=True)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


class _Connection(RedisConnection):
    """One whose server seems to be another one after each restart."""

    def __init__(self, raw: Any, starts: int) -> None:
        super().__init__(raw)
        self._starts = starts

    def open(self, deadline: Deadline) -> None:
        super().open(deadline)
        self.run_id += f"-{self._starts}"


class _Link(RedisLink):
    starts = 0

    def new(self) -> RedisConnection:
        return _Connection(self._servers.new(), self.starts)


class RedisHarness:
    """A :class:`.Harness`. Subclasses have the server. A restart means another run id and maybe no data."""

    server: RedisServer
    scripts = load_all_scripts(CLOCK)

    def __init__(self) -> None:
        self._client = self.server.client()
        self._client.flushall()
        self._starts = 0
        self.now = _BEGIN - LEASE
        self._set_clock()
        self.store = self._new()
        self._settle()

    def _new(self) -> Store:
        return self.connect(self.scripts)

    def connect(self, scripts: dict[int, dict[str, Script]]) -> RedisStore:
        """Return the store of another process, which the caller closes."""
        link = _Link(StatePlace.parse(self.server.url))
        link.starts = self._starts
        return RedisStore(link, scripts)

    def _settle(self) -> None:
        """Have a first member wait for its lease, as a store without data demands."""
        first = Member("first", "first", LEASE)
        self.store.publish(Publication(first))
        self.advance(LEASE - 1)
        self.store.publish(Publication(first))
        self.advance(1)
        assert self.store.publish(Publication(first)).settled
        self.store.leave(first.id)

    def _set_clock(self) -> None:
        self._client.set("test-now", repr(self.now))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self._set_clock()

    def restart(self, *, data: bool) -> None:
        self.store.close()
        self._starts += 1
        if not data:
            self._client.flushall()
            self._client.script_flush()
            self._set_clock()
        self.store = self._new()
        self.store.members()  # an epoch begins when the first member comes, which is within half a second

    def sizes(self) -> dict[str, int]:
        """Return how many things are there by key, but for what is there as long as the store is."""
        client: Any = self._client
        sizes: dict[str, int] = {}
        for key in client.scan_iter("{wsproxy}:*"):
            length = {b"hash": client.hlen, b"zset": client.zcard, b"string": client.strlen}
            sizes[key.decode().split(":", 2)[2]] = length[client.type(key)](key)
        for name in ("meta", "ended", "rule-kicks", "schema"):
            sizes.pop(name, None)
        copies = sizes.pop("copies", 0)
        assert copies == sizes.pop("copy-texts", 0)
        for kind in ("rule", "failure", "ticket"):
            found = [sizes.pop(name) for name in list(sizes) if name.startswith(kind)]
            if kind != "ticket":  # of those one is by user
                assert len({*found}) <= 1, (kind, found)
            sizes[f"{kind}s"] = max(found, default=0)
        return sizes | {"copies": copies}

    def close(self) -> None:
        self.store.close()
        self._client.close()


class RedisCase(LeakTestCase):
    """Each test has a server, and a client of redis-py.

    :cvar options: of the server.
    """

    options: tuple[str, ...] = ()

    def setUp(self) -> None:
        super().setUp()
        if REDIS_SERVER is None:
            self.skipTest("no redis-server")
        self.server = RedisServer(*self.options)
        self.addCleanup(self.server.close)
        self.client: Any = self.server.client()
        self.addCleanup(self.client.close)
