"""Real stores for several programs, with what a test breaks: the server, the network to it, its data."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from tests.integration.cut_link import FAR, run, second_namespace
from tests.integration.redis_server import REDIS_SERVER, RedisServer
from tests.shared.forwarder import Forwarder
from tests.support.ports import free_port
from tests.support.proxy_process import wait_until

__all__ = ["LocalStore", "RedisBehindLinks", "RedisInNamespace", "RedisWithSentinels", "Store"]

_SNAPSHOT = "dump.rdb"
_START_TIMEOUT = 30.0
_PORT = 6379  # in a namespace of its own
_PEER = struct.Struct("3i")


class Store(ABC):
    """A store for some programs. :meth:`close` ends what belongs to it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def start(self) -> None:
        """Start it."""

    @abstractmethod
    def url(self, program: int) -> str:
        """Return where one of the programs finds it."""

    def close(self) -> None:
        """End it. Idempotent."""
        self._stack.close()


class RedisBehindLinks(Store):
    """A redis-server, which each program reaches through a network of its own.

    :param count: how many programs.
    :ivar server: the server, which may be stopped and started.
    :ivar links: the networks, one for each program.
    """

    def __init__(self, count: int, *options: str) -> None:
        self._count, self._options = count, options
        super().__init__()

    def start(self) -> None:
        port = free_port()
        self.server = RedisServer("--port", str(port), "--bind", "127.0.0.1", *self._options)
        self._stack.callback(self.server.close)
        self.links = [self._stack.enter_context(Forwarder(("127.0.0.1", port))) for _ in range(self._count)]
        self.client: Any = self._stack.enter_context(self.server.client())

    def url(self, program: int) -> str:
        host, port = self.links[program].address
        return f"redis://{host}:{port}/0"

    def save(self, name: str = _SNAPSHOT) -> None:
        """Write what it has into a file; by default into the one that it reads at its start."""
        self.client.save()
        if name != _SNAPSHOT:
            shutil.copy(self.server.directory / _SNAPSHOT, self.server.directory / name)

    def restart(self, snapshot: str | None) -> None:
        """Start it again after it was stopped.

        :param snapshot: the file with its data, None for none.
        """
        path = self.server.directory / _SNAPSHOT
        if snapshot is None:
            path.unlink(missing_ok=True)
        elif snapshot != _SNAPSHOT:
            shutil.copy(self.server.directory / snapshot, path)
        self.server.start()


class RedisInNamespace(Store):
    """A redis-server in a network namespace of its own, whose link can be cut.

    The process has to be in a namespace of its own, too, where it may make links (``scripts/state-faults``).
    """

    def start(self) -> None:
        self._there = self._stack.enter_context(second_namespace())
        options = ("--port", str(_PORT), "--bind", FAR, "--protected-mode", "no")
        server = RedisServer(*options, prefix=self._there)
        self._stack.callback(server.close)

    def url(self, program: int) -> str:
        return f"redis://{FAR}:{_PORT}/0"

    def cut(self) -> None:
        """Take the link down: packets are lost."""
        run(*self._there, "ip", "link", "set", "far", "down")

    def mend(self) -> None:
        """Take it up again."""
        run(*self._there, "ip", "link", "set", "far", "up")


class LocalStore(Store):
    """A store of this host, which the programs start by themselves."""

    def start(self) -> None:
        directory = tempfile.mkdtemp(prefix="wsproxy-store-")
        self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
        self._path = os.path.join(directory, "s")

    def url(self, program: int) -> str:
        return f"local:{self._path}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the store's process; with SIGCONT to the one that got the last."""
        if number is not signal.SIGCONT:
            self._pid = self.pid
            self._stack.callback(_let_go_on, self._pid)
        os.kill(self._pid, number)

    @property
    def pid(self) -> int:
        """The number of the store's process."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self._path)
            peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        pid: int = _PEER.unpack(peer)[0]
        return pid


class RedisWithSentinels(Store):
    """A primary, a replica and three Sentinels.

    :ivar primary: the server that is the primary at first.
    """

    def start(self) -> None:
        port = free_port()
        self.primary = self._server(port)
        self._server(free_port(), "--replicaof", f"127.0.0.1 {port}")
        with self.primary.client() as client:
            found: Any = client
            if not wait_until(lambda: bool(found.set("test", 1)) and found.wait(1, 500) == 1, _START_TIMEOUT):
                raise AssertionError("the replica does not follow")
        self._sentinels = [self._sentinel(port) for _ in range(3)]
        if not wait_until(self._is_complete, _START_TIMEOUT):
            raise AssertionError("the Sentinels do not know each other")

    def _server(self, port: int, *options: str) -> RedisServer:
        quick = ("--repl-diskless-sync-delay", "0")
        server = RedisServer("--port", str(port), "--bind", "127.0.0.1", *quick, *options)
        self._stack.callback(server.close)
        return server

    def _sentinel(self, primary: int) -> int:
        port = free_port()
        directory = tempfile.mkdtemp(prefix="wsproxy-sentinel-")
        self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
        file = os.path.join(directory, "sentinel.conf")
        with open(file, "w", encoding="utf-8") as text:
            text.write(
                f"port {port}\nbind 127.0.0.1\ndir {directory}\nsentinel monitor main 127.0.0.1 {primary} 2\n"
                "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n"
            )
        process = subprocess.Popen([str(REDIS_SERVER), file, "--sentinel"], stdout=subprocess.DEVNULL)
        self._stack.callback(process.wait, 10)
        self._stack.callback(process.kill)
        return port

    def _is_complete(self) -> bool:
        try:
            return all(self._knows_all(port) for port in self._sentinels)
        except RedisError:
            return False

    def _knows_all(self, port: int) -> bool:
        with Redis(port=port) as client:
            asked: Any = client
            others = asked.execute_command("SENTINEL", "SENTINELS", "main")
            return len(others) == 2 and bool(asked.execute_command("SENTINEL", "REPLICAS", "main"))

    def kill_primary(self) -> None:
        """End the primary without a word."""
        self.primary.process.send_signal(signal.SIGKILL)

    def url(self, program: int) -> str:
        places = ",".join(f"127.0.0.1:{port}" for port in self._sentinels)
        return f"redis+sentinel://{places}/main"


def _let_go_on(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
