"""Replicas on one Redis: programs, each of which reaches the server through a network of its own.

The tests break that network, the server, and the programs.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType, TracebackType
from typing import Any

from tests.integration.redis_server import RedisServer
from tests.shared.cluster import CountingAPI
from tests.shared.columns import ask_operator
from tests.shared.forwarder import Forwarder
from tests.shared.visitors import Visitors
from tests.support.listeners import free_port
from tests.support.proxy_process import ProxyProcess

__all__ = ["Replica", "Replicas"]

_LEASE = "2"
_PROBES = 2  # sessions at each replica


class Replica:
    """A program. It stops with its group.

    :ivar link: its network to the store.
    :ivar proxy: the process, another one after :meth:`restart`.
    """

    def __init__(
        self, api: CountingAPI, store: tuple[str, int], directory: str, name: str, settings: Mapping[str, str]
    ):
        self._stack = ExitStack()
        self.link = self._stack.enter_context(Forwarder(store))
        self._api = api
        self._admin = os.path.join(directory, f"admin-{name}")
        host, port = self.link.address
        self._settings = {
            "WSPROXY_STATE": f"redis://{host}:{port}/0",
            "WSPROXY_STATE_LEASE": _LEASE,
            "WSPROXY_TRUSTED_PROXIES": "127.0.0.1",
            "WSPROXY_ADMIN": f"unix:{self._admin}",
            "WSPROXY_CLOSE_TIMEOUT": "2",
            "WSPROXY_DIAL_TIMEOUT": "5",
            **settings,
        }
        self._start()

    def _start(self) -> None:
        self.proxy = ProxyProcess(self._api, **self._settings)
        self._stack.callback(self.proxy.close)

    @property
    def address(self) -> tuple[str, int]:
        """Where clients connect."""
        return self.proxy.address

    def kick(self, **who: str) -> tuple[int, Any]:
        """Kick by ``user``, ``namespace``, ``vmi`` or ``token``; return status and answer when it is done."""
        return ask_operator(self._admin, "POST", "/kick", who)

    def listed(self) -> list[dict[str, Any]]:
        """Return the sessions that this replica lists."""
        status, answer = ask_operator(self._admin, "GET", "/sessions")
        assert status == 200, answer
        found: list[dict[str, Any]] = answer["sessions"]
        return found

    def kill(self) -> None:
        """End it without a word."""
        self.proxy.stop(signal.SIGKILL)

    def restart(self) -> None:
        """Start another process in its place, at another port."""
        self.proxy.close()
        self._start()

    def pause(self) -> None:
        """Stop it (SIGSTOP)."""
        self.proxy.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.proxy.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop it. Idempotent."""
        if self.proxy.process.poll() is None:
            self.resume()
        self._stack.close()


class Replicas:
    """Programs in front of one simulated API, with one store. Use ``with``.

    :param count: how many.
    :param settings: further settings of the programs.
    :param redis: further options of the server.
    :ivar api: the simulated API.
    :ivar server: the store, which may be stopped and started.
    """

    def __init__(
        self, count: int, settings: Mapping[str, str] = MappingProxyType({}), redis: Sequence[str] = ()
    ) -> None:
        self._stack = ExitStack()
        self._turns = itertools.count()
        try:
            self.directory = tempfile.mkdtemp(prefix="wsproxy-")
            self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.api = CountingAPI()
            self.api.start()
            self._stack.callback(self.api.stop)
            port = free_port()
            self.server = RedisServer("--port", str(port), "--bind", "127.0.0.1", *redis)
            self._stack.callback(self.server.close)
            self.all: list[Replica] = []
            for number in range(count):
                replica = Replica(self.api, ("127.0.0.1", port), self.directory, str(number), settings)
                self._stack.callback(replica.close)
                self.all.append(replica)
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    def address(self) -> tuple[str, int]:
        """Return where the next client connects: each replica in turn."""
        return self.all[next(self._turns) % len(self.all)].address

    def _wait_until_ready(self) -> None:
        self.api.add_vmi("probe-0")
        with Visitors(self) as visitors:
            for _ in range(_PROBES * len(self.all)):
                visitors.leave([visitors.open(visitors.wanted("probe-0", "probe")).client])

    def close(self) -> None:
        """End everything. Idempotent."""
        self._stack.close()

    def __enter__(self) -> Replicas:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
