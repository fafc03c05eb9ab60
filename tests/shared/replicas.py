"""Replicas: programs that have one store. The tests break the programs, and the store."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from types import MappingProxyType, TracebackType
from typing import Any

from tests.shared.cluster import CountingAPI
from tests.shared.columns import ask_operator
from tests.shared.stores import Store
from tests.shared.visitors import Visitors
from tests.support.proxy_process import ProxyProcess

__all__ = ["LEASE", "Replica", "Replicas"]

LEASE = "2"
_PROBES = 2  # sessions at each replica


class Replica:
    """A program. It stops with its group.

    :ivar proxy: the process, another one after :meth:`restart`.
    """

    def __init__(self, api: CountingAPI, admin: str, settings: Mapping[str, str]) -> None:
        self._stack = ExitStack()
        self._api = api
        self._admin = admin
        self._settings = {
            "WSPROXY_STATE_LEASE": LEASE,
            "WSPROXY_TRUSTED_PROXIES": "127.0.0.1",
            "WSPROXY_ADMIN": f"unix:{admin}",
            "WSPROXY_CLOSE_TIMEOUT": "2",
            "WSPROXY_DIAL_TIMEOUT": "5",
            **settings,
        }
        self._start()

    def _start(self, *command: str) -> None:
        self.proxy = ProxyProcess(self._api, command or ("-m", "wsproxy"), **self._settings)
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

    def restart(self, *command: str) -> None:
        """Start another process in its place, at another port.

        :param command: what the interpreter is to run; by default this version of the program.
        """
        self.proxy.close()
        self._start(*command)

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
    """Programs in front of one simulated API, with one store. Use ``with``. They end the store, too.

    :param count: how many.
    :param store: what they have in common.
    :param settings: further settings of the programs.
    :ivar api: the simulated API.
    :ivar all: the programs.
    """

    def __init__(self, count: int, store: Store, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        self._stack = ExitStack()
        self._stack.callback(store.close)
        self._turns = itertools.count()
        try:
            directory = tempfile.mkdtemp(prefix="wsproxy-")
            self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
            self.api = CountingAPI()
            self.api.start()
            self._stack.callback(self.api.stop)
            self.all: list[Replica] = []
            for number in range(count):
                own = {**settings, "WSPROXY_STATE": store.url(number)}
                replica = Replica(self.api, os.path.join(directory, f"admin-{number}"), own)
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
