"""The listening socket: accepts connections, and gives each a thread of its own.

This replaces most of :mod:`socketserver`, which cannot serve the Internet. Its backlog is 5, and each accept
searches a list of threads. ``serve_forever`` polls, and ``shutdown`` in the same thread hangs. If there are
no descriptors left, the accept loop spins. Errors go to stderr.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from typing import Any

from ..access.sessions import SessionHandle
from ..net.listeners import BACKLOG, Listener
from ..net.sockets import GONE, AcceptTurns, readable_by, reset_on_close, tune, wake, why_not_accepted
from ..protocol.client import Peer
from ..runtime.deadline import Deadline
from ..runtime.forks import in_forked_child
from ..runtime.logs import get_logger
from ..runtime.threads import ThreadPool, VitalLoop, current_owner, start_thread
from ..telemetry.counters import Snapshot
from .connection import ClientConnection
from .connections import Registry, stop_serving
from .exchange import Exchange
from .gateway import Gateway
from .refusal import Refuser

__all__ = ["ConsoleServer"]

logger = get_logger("wsproxy.server")

_PAUSE_SECONDS = 0.05


class ConsoleServer(socketserver.ThreadingTCPServer):
    """Accepts clients from one listening socket.

    :param listener: see :func:`.listen`; :meth:`stop` closes it, and so does a constructor that fails.
    :param gateway: what all sessions share; started and stopped with the server.
    :param shared: whether other processes also accept from the listener.
    :ivar address: the bound host and port, even after the server has stopped; ``unix:PATH`` and 0 for a path.
    """

    def __init__(self, listener: Listener, gateway: Gateway, *, shared: bool = False) -> None:
        socketserver.BaseServer.__init__(self, listener.getsockname(), socketserver.BaseRequestHandler)
        self.socket = self._listener = listener
        self.address = listener.address  # read once: any thread may ask while another stops the server
        self._gateway = gateway
        self._shared = shared or listener.inherited
        self._refuser = Refuser(gateway.config.reject)
        self._registry = Registry()
        self._pool = ThreadPool(gateway)
        self._stop_requested = threading.Event()
        self._hurry = threading.Event()
        self._complained = self._out_of_threads = False
        self._accepting = VitalLoop("accepting connections", self.serve_forever)
        self._accept_thread: threading.Thread | None = None
        try:
            self._waker, self._woken = socket.socketpair()
        except BaseException:
            listener.close()
            raise
        for sock in (listener, self._waker, self._woken):
            in_forked_child(sock, socket.socket.close)
        listener.setblocking(False)  # a client may leave before the accept() for it

    @property
    def connections(self) -> int:
        """The number of connections now, in any phase."""
        return len(self._registry)

    def numbers(self) -> Snapshot:
        """Return the numbers of this moment."""
        return self._gateway.counters.numbers(self.connections)

    def sessions(self) -> list[SessionHandle]:
        """Return the sessions that are open or being opened now."""
        return self._gateway.sessions.all()

    def end_sessions(self, **which: Any) -> int:
        """See :meth:`.LiveSessions.end`."""
        return self._gateway.sessions.end(**which)

    @property
    def serves_current_thread(self) -> bool:
        """Whether the calling thread belongs to this server."""
        return current_owner() is self._gateway

    def start(self) -> None:
        """Serve in the server's own threads until :meth:`stop`. May be called once.

        Blocking and errors are as for :meth:`.Gateway.start`.
        """
        self._gateway.start()
        self._gateway.vital.append(self._accepting)
        self._accept_thread = start_thread(
            f"wsproxy-accept-{self.address[1]}", self._accepting.run, self._gateway
        )

    def stop(self, drain: float = 0.0, grace: float = 0.0) -> None:
        """Stop accepting, drain, end the remaining sessions with Close 1012, and close everything.

        Blocks for at most ``grace`` and ``drain`` seconds, which :meth:`hurry` ends. Then it blocks for at
        most the close timeout and a few seconds. Any thread, except the server's own. Idempotent.

        :param drain: seconds for which open sessions may continue after the server has stopped accepting.
        :param grace: seconds before that, in which the server still admits clients. Only ``/readyz`` already
            reports the stop.
        """
        self._gateway.readiness.drain()
        self._hurry.wait(grace)
        self.shutdown()
        self._accepting.stop()
        if self._accept_thread:
            self._accept_thread.join()
        self._gateway.admits = False
        self.server_close()
        self._registry.drain(drain)
        stop_serving(self._registry, self._gateway, logger, None, self._pool)

    def hurry(self) -> None:
        """End the grace and the drain of :meth:`stop`, also of a later call. Any thread; does not block."""
        self._hurry.set()
        self._registry.stop_draining()

    def reload(self) -> None:
        """See :meth:`.Gateway.reload`."""
        self._gateway.reload()

    # What socketserver calls

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Accept until :meth:`shutdown`. Blocks that long. Ignores ``poll_interval``: nothing is polled."""
        with AcceptTurns(self.socket, self._woken, self._shared) as turns:
            while not self._stop_requested.is_set():
                turns.wait()
                self._handle_request_noblock()  # type: ignore[attr-defined]
        if not self._listener.inherited:  # another process may serve an inherited queue
            self._accept_queued()

    def _accept_queued(self) -> None:
        """Accept the clients that the kernel has queued. Otherwise closing the listener would reset them."""
        deadline = Deadline(self._listener.withdraw())
        for _ in range(BACKLOG):
            if self._complained or not readable_by(self.socket, deadline):
                return
            self._handle_request_noblock()  # type: ignore[attr-defined]

    def shutdown(self) -> None:
        """Make :meth:`serve_forever` return. Any thread, does not block, idempotent."""
        self._stop_requested.set()
        try:
            self._waker.send(b"\0")
        except OSError:
            pass  # closed already

    def server_close(self) -> None:
        if not self._shared:
            wake(self.socket)  # frees the port even if a child has a copy without knowing it
        super(socketserver.ThreadingMixIn, self).server_close()  # the pool joins the threads
        self._waker.close()
        self._woken.close()

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            sock, address = self.socket.accept()
        except GONE:
            raise
        except OSError as exc:
            self._pause(exc)
            raise
        self._complained = False
        return sock, address

    def process_request(self, request: Any, client_address: Any) -> None:
        peer = Peer.accepted(client_address)
        if not self._gateway.admission.admits(peer.network):
            _reset(request)
            return
        tune(request)
        connection = ClientConnection(self._gateway, request, peer)
        exchange = Exchange(self._gateway, self._refuser, connection)
        if not self._registry.add(exchange):
            request.close()
            return
        try:
            self._gateway.admission.add(connection, peer.network)
            self._pool.run(f"wsproxy-{exchange.session.id}", lambda: self._run(exchange))
        except BaseException as exc:
            self._forget(exchange)
            exchange.session.close()
            if not isinstance(exc, RuntimeError):
                raise
            if not self._out_of_threads:
                logger.error("connection from %s dropped: %s", peer, exc)
            self._out_of_threads = True
            request.close()
        else:
            self._out_of_threads = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        peer = Peer.accepted(client_address)
        self._gateway.failures.report(logger, "accepting a connection from %s failed", peer)

    def _run(self, exchange: Exchange) -> None:
        try:
            exchange.run()
        finally:
            self._forget(exchange)

    def _forget(self, exchange: Exchange) -> None:
        self._gateway.admission.remove(exchange.client)
        self._registry.remove(exchange)

    def _pause(self, exc: OSError) -> None:
        """Pause after a failed accept, so that the loop does not spin. Log the first failure in a row."""
        if not self._complained:
            logger.error("cannot accept connections: %s", why_not_accepted(exc))
            self._complained = True
        self._stop_requested.wait(_PAUSE_SECONDS)


def _reset(sock: socket.socket) -> None:
    """Close a connection by RST, so that the kernel keeps no state of it."""
    reset_on_close(sock)
    sock.close()
