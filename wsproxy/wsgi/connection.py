"""The connection of one upgrade request that came through a WSGI server."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import simple_websocket

from ..net.sockets import tune
from ..net.tls import transport_of
from ..net.transport import Transport
from ..protocol.client import Peer
from ..protocol.handshake import Upgrade
from ..protocol.request import RequestHead
from ..runtime.deadline import Deadline
from ..server.exchange import LAST_WORD_SECONDS
from ..telemetry.record import SessionRecord
from .environ import Environ, is_tls, peer_of
from .servers import take_read_ahead

__all__ = ["WSGIConnection"]

# What simple-websocket gets. No extensions, because it might agree to them; no credentials, because it
# does not need them.
_HANDSHAKE = (
    "HTTP_HOST",
    "HTTP_UPGRADE",
    "HTTP_CONNECTION",
    "HTTP_SEC_WEBSOCKET_KEY",
    "HTTP_SEC_WEBSOCKET_VERSION",
    "HTTP_SEC_WEBSOCKET_PROTOCOL",
)


class WSGIConnection:
    """The socket that a WSGI server gives with an upgrade request; see :class:`.ClientIO`.

    :param environ: the request's environ.
    :param head: the request's head, made from ``environ``.
    :param sock: the client's socket; :meth:`close` shuts it down, and the server closes it.
    """

    def __init__(self, environ: Environ, head: RequestHead, sock: socket.socket) -> None:
        ahead = take_read_ahead(environ, sock)
        self.peer = peer_of(environ)
        self.source: Peer | None = None
        self.tls = is_tls(environ)
        self.transport: Transport = transport_of(sock)
        self.transport.unread(ahead)
        tune(sock)
        self._environ = environ
        self._head = head

    def begin(self, record: SessionRecord, deadline: Deadline) -> bool:
        return True

    def receive_head(self, deadline: Deadline) -> RequestHead:
        return self._head

    def accept(self, upgrade: Upgrade, subprotocol: str | None, deadline: Deadline) -> None:
        environ = {name: self._environ[name] for name in _HANDSHAKE if name in self._environ}
        environ["werkzeug.socket"] = _Handshaking(self.transport, deadline)
        simple_websocket.Server.accept(
            environ, subprotocols=[subprotocol] if subprotocol else [], thread_class=_NoThread
        )

    def note_told(self) -> None:
        pass  # stop() does not wait for it here

    def stop(self) -> None:
        self.abort()

    def abort(self) -> None:
        self.transport.abort()

    def tick(self, now: float) -> float:
        """Housekeeping: see :meth:`.ClientConnection.tick`."""
        self.abort()
        return now + LAST_WORD_SECONDS

    def close(self) -> None:
        self.transport.give_back()


class _Handshaking:
    """Replaces the socket for simple-websocket, so that one deadline bounds the answer."""

    def __init__(self, transport: Transport, deadline: Deadline) -> None:
        self._transport = transport
        self._deadline = deadline

    def send(self, data: bytes) -> int:
        self._transport.send(data, self._deadline)
        return len(data)


class _NoThread:
    """Replaces the thread by which simple-websocket would read the socket, because the relay reads it."""

    def __init__(self, target: Callable[[], Any]) -> None:
        self.name = ""

    def start(self) -> None:
        pass
