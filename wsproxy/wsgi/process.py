"""Serves the consoles of one process under a WSGI server."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

from ..access.hooks import Hooks
from ..admin.operator import candidate_thread
from ..admin.thread import AdminThread
from ..config import Config
from ..exceptions import Busy, Draining, Refused
from ..protocol.client import Client
from ..protocol.request import RequestHead
from ..protocol.routing import Route
from ..runtime.deadline import Deadline
from ..runtime.logs import get_logger
from ..runtime.threads import working_for
from ..server.connections import Registry, stop_serving
from ..server.exchange import Around, Exchange
from ..server.gateway import Gateway
from ..server.refusal import Refuser
from ..telemetry.counters import Snapshot
from ..telemetry.record import Admitted
from ..tokens.claims import Grant
from .connection import WSGIConnection
from .environ import Environ
from .servers import WSGIServer

__all__ = ["WSGIProcess"]

logger = get_logger("wsproxy.wsgi")

_MAX_CONVERSATIONS = 64
_LOOK_SECONDS = 0.5


class WSGIProcess:
    """The gateway of one process, and the worker threads that its consoles hold. Safe from every thread.

    :param server: the server that runs this process.
    :param reserve: how many of the server's threads never serve consoles.
    :ivar pid: id of the process that made this; a forked child must not use it.
    """

    def __init__(self, config: Config, hooks: Hooks, server: WSGIServer, reserve: int) -> None:
        self.pid = os.getpid()
        self.server = server
        self.gateway = Gateway(config, hooks)
        self._registry = Registry()
        self._admin: AdminThread | None = None
        self._limit = None if server.threads is None else max(server.threads - reserve, 0)
        self._busy = "all threads that this server has for consoles are in use"
        if self._limit == 0:
            self._busy = (
                f"this server has too few threads for a console: it has {server.threads}, and keeps "
                f"{reserve} for other requests; a console needs {reserve + 1} or more (gunicorn's --threads)"
            )
        # A refusal by a Close frame may hold its thread for 6 s. So at most a quarter of the threads for
        # consoles, and all but one of the reserved threads, send such refusals at a time.
        most = _MAX_CONVERSATIONS if self._limit is None else max(self._limit // 4, 1)
        self._refuser = Refuser(config.reject, most)
        self._refuser_when_busy = Refuser(config.reject, max(reserve - 1, 0))
        # Guards the number of threads that consoles hold.
        self._lock = threading.Lock()
        self._held = 0
        self._stopping = threading.Lock()
        self._stopped = False

    @classmethod
    def started(cls, config: Config, hooks: Hooks, server: WSGIServer, reserve: int) -> WSGIProcess:
        """Make one, and start it. If that fails, nothing is left of it.

        Blocks on the file system, and on the resolver if the operator's listener has the name of a host. If
        processes share a store, it also blocks until this one is in step, for a few seconds at most.

        :raises ConfigError: if a file that the settings name cannot be used, or the store is unfit.
        """
        process = cls(config, hooks, server, reserve)
        try:
            process.start()
        except BaseException:
            process.stop(0)
            raise
        return process

    def start(self) -> None:
        """Start the threads that all consoles share. Blocking and errors are as for :meth:`started`."""
        if self._limit == 0:
            logger.warning("%s", self._busy)
        self.gateway.readiness.check_files()
        self._admin = self._operator()
        self.gateway.start()
        if self._admin:
            self._admin.start(self.gateway)
            self.gateway.vital.append(self._admin)
        if self.server.stopping:
            self.gateway.housekeeping.add(self, _LOOK_SECONDS)

    def _operator(self) -> AdminThread | None:
        """Return what serves the operator if no other process of the server does."""
        rules = self.gateway.config.operator_rules
        if rules is None:
            return None
        return candidate_thread(rules, self.gateway.kicks(), self.numbers, self.gateway, strict=False)

    def tick(self, now: float) -> float:
        """Housekeeping: end the consoles when the server begins to stop, as it waits for their threads."""
        if self.server.stopping and self.server.stopping():
            self._registry.stop()
        return now + _LOOK_SECONDS

    def stop(self, timeout: float | None) -> None:
        """End every console with Close 1012, and every thread. Idempotent. Any thread but a session's own.

        Blocks for at most ``timeout``, or the close timeout if it is None, and a few seconds.
        """
        with self._stopping:
            if not self._stopped:
                stop_serving(self._registry, self.gateway, logger, timeout, None)
                if self._admin:
                    self._admin.stop()
                self._stopped = True

    def numbers(self) -> Snapshot:
        """Return the numbers of this process at this moment. Any thread; does not block."""
        return self.gateway.counters.numbers(len(self._registry))

    def serve(
        self,
        environ: Environ,
        head: RequestHead,
        sock: socket.socket,
        *,
        granted: tuple[Route, Grant] | None = None,
        refused: Refused | None = None,
        around: Around | None = None,
    ) -> int:
        """Serve one upgrade request until its console is closed, and return its HTTP status.

        Blocks that long. For the parameters see :class:`.WSGIConnection` and :class:`.Exchange`.

        :raises OSError: if the server has closed the socket.
        """
        room = self._take_thread()
        refuser = self._refuser if room else self._refuser_when_busy
        try:
            connection = WSGIConnection(environ, head, sock)
            exchange = Exchange(self.gateway, refuser, connection, granted=granted, around=around)
            exchange.refused = refused if room else Busy(self._busy)
            if room and not self._registry.add(exchange):
                exchange.refused = Draining("the proxy is stopping")
            with working_for(self.gateway):
                status = exchange.run()  # raises nothing
            self._registry.remove(exchange)
            return status
        finally:
            if room:
                self._give_thread_back()

    def picture(
        self,
        head: RequestHead,
        client: Client,
        deadline: Deadline,
        on_admitted: Callable[[Admitted], None],
    ) -> bytes:
        """Return a screenshot, see :class:`.ScreenshotSource`. The thread counts as a console's meanwhile.

        :raises Busy: if consoles hold all threads that they may.
        """
        if not self._take_thread():
            raise Busy(self._busy)
        try:
            return self.gateway.pictures.picture(head, client, deadline, on_admitted)
        finally:
            self._give_thread_back()

    def _take_thread(self) -> bool:
        """Count the calling thread as a console's; return False if consoles may not hold one more."""
        with self._lock:
            if self._limit is not None and self._held >= self._limit:
                return False
            self._held += 1
            return True

    def _give_thread_back(self) -> None:
        with self._lock:
            self._held -= 1
