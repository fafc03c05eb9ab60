"""The program with a window into it, for ``scripts/soak --churn``: it tells what it knows of its clients.

SIGUSR1 has it write its numbers to stderr, one line of JSON; SIGUSR2 the same, with the objects and memory
left after a collection of garbage. With ``--leak`` it loses something with every session, on purpose: that is
the control.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import threading
from collections import Counter
from unittest import mock

from wsproxy.access.hooks import AccessRequest
from wsproxy.access.sessions import SessionHandle
from wsproxy.cli import program
from wsproxy.config import Config
from wsproxy.exceptions import Forbidden
from wsproxy.protocol.closing import Ending
from wsproxy.proxy import WebsocketProxy
from wsproxy.server.gateway import Gateway
from wsproxy.state.stores.memory import MemoryStore
from wsproxy.tokens.claims import Grant

__all__ = ["MALLOC", "MARK"]

MARK = "churn: "
"""What each line of numbers begins with."""

MALLOC = "KiB of malloc in use"
"""The name of one of them, which is missing where there is no glibc."""

_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
_MODULES = ("exchange", "connection", "session", "relay", "pump", "writer", "transport", "tls", "upstream")
# What there is one of in all; the session of TLS, to be resumed, is the last that was made.
_ONCE = ("ClientTLS", "Dialler", "Gateway", "RelayLimits", "TLSSession")
_LEAKED_BYTES = 1 << 18
_EVERY = 10  # session loses a descriptor, a thread and its place in the numbers, too


class _Carried:
    """A session that never ends, as far as it is counted."""

    bytes_up = bytes_down = 0


class _Program:
    """The program, with hooks, and with somebody who looks into it.

    :param leak: whether it loses something with every session.
    """

    def __init__(self, leak: bool) -> None:
        self._leak = leak
        self._lost: list[object] = []
        self._never = threading.Event()
        self._proxy: WebsocketProxy | None = None

    def run(self) -> int:
        """Serve until SIGTERM; return the exit status. In the main thread, before there is another."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # in every thread: one waits for them
        threading.Thread(target=self._answer, daemon=True).start()
        make = WebsocketProxy.from_config

        def from_config(config: Config) -> WebsocketProxy:
            on_close = self._lose if self._leak else None
            self._proxy = make(config, _authorize, on_open=_kick, on_close=on_close)
            return self._proxy

        with mock.patch.object(WebsocketProxy, "from_config", from_config):
            return program.main(["serve"])

    @property
    def _gateway(self) -> Gateway:
        assert self._proxy and self._proxy._server
        return self._proxy._server._gateway

    def _lose(self, session: SessionHandle, ending: Ending) -> None:
        self._lost.append(os.urandom(_LEAKED_BYTES))
        if len(self._lost) % _EVERY == 0:
            os.dup(0)
            threading.Thread(target=self._never.wait, daemon=True).start()
            self._gateway.counters.add(_Carried(), dial_seconds=0.0)

    def _answer(self) -> None:
        while True:
            number = signal.sigwait(_SIGNALS)
            answer = {"numbers": self._numbers()}
            if number == signal.SIGUSR2:
                gc.collect()
                answer |= {"objects": _objects(), "memory": _memory()}
            os.write(2, f"{MARK}{json.dumps(answer)}\n".encode())

    def _numbers(self) -> dict[str, int]:
        """Return how many clients everything knows of that knows of any."""
        assert self._proxy
        gateway, connections = self._gateway, self._proxy.connections
        store = gateway.participant.store
        assert isinstance(store, MemoryStore)
        counted = gateway.counters.numbers(connections)
        return {
            "opened": counted.opened,
            "connections": connections,
            "active sessions": counted.sessions,
            "live sessions": len(gateway.sessions),
            "pending clients": len(gateway.admission._pending),
            "clients shut down": len(gateway.admission._leaving),
            "contested consoles": store.sizes["consoles"],
            "sessions of a store": gateway.participant.held,
            "limited places": sum(gateway.limits._taken.values()),
            "housekeeping tasks": len(gateway.housekeeping),
            "tickets": store.sizes["tickets"],
        }


def _authorize(grant: Grant, request: AccessRequest) -> None:
    if request.vmi.startswith("deny-"):
        raise Forbidden("not today")


def _kick(session: SessionHandle) -> None:
    if session.vmi.startswith("kick-"):
        session.close()


def _objects() -> dict[str, int]:
    """Return how many objects there are that belong to single connections, by class."""
    modules = {f"wsproxy.{name}" for name in _MODULES}
    kinds = (type(item) for item in gc.get_objects())
    return Counter(
        kind.__name__ for kind in kinds if kind.__module__ in modules and kind.__name__ not in _ONCE
    )


class _MallInfo(ctypes.Structure):
    """What glibc's mallinfo2(3) returns."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def _memory() -> dict[str, int]:
    """Return what is in use, as the allocators see it, and give back what is not, as far as it can be."""
    found = {"blocks of Python's allocator in use": sys.getallocatedblocks()}
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallinfo2"):
        libc.mallinfo2.restype = _MallInfo
        found[MALLOC] = libc.mallinfo2().uordblks >> 10
        libc.malloc_trim(0)
    return found


if __name__ == "__main__":
    sys.exit(_Program(leak="--leak" in sys.argv).run())
