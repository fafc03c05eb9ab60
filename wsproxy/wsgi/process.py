"""What serves the consoles of one process under a WSGI server."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

from ..access.hooks import Hooks
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

    :param server: around it.
    :param reserve: how many of the server's threads never serve consoles.
    :ivar pid: the process; it is of no use in another.
    """

    def __init__(self, config: Config, hooks: Hooks, server: WSGIServer, reserve: int) -> None:
        self.pid = os.getpid()
        self.server = server
        self.gateway = Gateway(config, hooks)
        self._registry = Registry()
        self._limit = None if server.threads is None else max(server.threads - reserve, 0)
        self._busy = "as many consoles are open as this server has threads for"
        if self._limit == 0:
            self._busy = (
                f"this server has too few threads for a console: {server.threads}, of which {reserve} are "
                f"kept for pages; it takes {reserve + 1} or more (gunicorn's --threads)"
            )
        # A browser that is refused may hold its thread for 5 s: not all that consoles may have, nor all
        # that is kept from them.
        most = _MAX_CONVERSATIONS if self._limit is None else max(self._limit // 4, 1)
        self._refuser = Refuser(config.reject, most)
        self._refuser_when_busy = Refuser(config.reject, max(reserve - 1, 0))
        # Guards the number of threads that consoles hold.
        self._lock = threading.Lock()
        self._held = 0
        self._stopping = threading.Lock()
        self._stopped = False

    def start(self) -> None:
        """Start the threads that all consoles share."""
        if self._limit == 0:
            logger.warning("%s", self._busy)
        self.gateway.readiness.check_files()
        self.gateway.start()
        if self.server.stopping:
            self.gateway.housekeeping.add(self, _LOOK_SECONDS)

    def tick(self, now: float) -> float:
        """Housekeeping: end the consoles when the server is about to stop, as it waits for their threads."""
        if self.server.stopping and self.server.stopping():
            self._registry.stop()
        return now + _LOOK_SECONDS

    def stop(self, timeout: float | None) -> None:
        """End every console with 1012 and every thread. Idempotent; not from within a console.

        Blocks for at most ``timeout``, or the close timeout, and a few seconds.
        """
        with self._stopping:
            if not self._stopped:
                stop_serving(self._registry, self.gateway, logger, timeout, None)
                self._stopped = True

    def numbers(self) -> Snapshot:
        """Return what was counted in this process, at this moment. Any thread; does not block."""
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
        """Serve one upgrade request until its console is closed, and return the HTTP status it got.

        Parameters are those of :class:`.WSGIConnection` and :class:`.Exchange`. Blocks that long.

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
        """Return the picture of a screen, as :class:`.ScreenshotSource` does; it takes a console's thread.

        :raises Busy: if consoles have all threads that they may.
        """
        if not self._take_thread():
            raise Busy(self._busy)
        try:
            return self.gateway.pictures.picture(head, client, deadline, on_admitted)
        finally:
            self._give_thread_back()

    def _take_thread(self) -> bool:
        """Count the calling thread as a console's, if consoles may have one more."""
        with self._lock:
            if self._limit is not None and self._held >= self._limit:
                return False
            self._held += 1
            return True

    def _give_thread_back(self) -> None:
        with self._lock:
            self._held -= 1
