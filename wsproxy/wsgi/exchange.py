"""One upgrade request that came through a WSGI server."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import simple_websocket

from ..exceptions import Refused
from ..net.sockets import tune
from ..net.tls import transport_of
from ..net.transport import Transport
from ..protocol.handshake import Upgrade
from ..protocol.request import RequestHead
from ..protocol.routing import Route
from ..runtime.deadline import Deadline
from ..server.exchange import Exchange
from ..server.gateway import Gateway
from ..server.opening import ClientLeft, Opened
from ..server.refusal import Refuser
from ..tokens.claims import Grant
from .environ import Environ, is_tls, peer_of
from .servers import take_read_ahead

__all__ = ["Around", "WSGIExchange"]

_Result = TypeVar("_Result")


class Around(Protocol):
    """Calls what it is given, with whatever the embedding program needs around it, and returns the answer."""

    def __call__(self, function: Callable[[], _Result], /) -> _Result: ...


# What the handshake is made of. No extensions: they would be agreed to. No credentials: nobody needs them.
_HANDSHAKE = (
    "HTTP_HOST",
    "HTTP_UPGRADE",
    "HTTP_CONNECTION",
    "HTTP_SEC_WEBSOCKET_KEY",
    "HTTP_SEC_WEBSOCKET_VERSION",
    "HTTP_SEC_WEBSOCKET_PROTOCOL",
)


class WSGIExchange(Exchange):
    """Serves one upgrade request over the socket that a WSGI server gives.

    :param gateway: what all sessions of the process share.
    :param refuser: how to refuse.
    :param environ: of the request.
    :param head: made of it.
    :param sock: the client's; shut down at the end, and left to the server to close.
    :param granted: as for :class:`.Exchange`.
    :param around: called for all that comes before the 101.
    :ivar refused: why the client is not let in, if that is known before :meth:`run`.
    :ivar status: the HTTP status that the request was answered with; 500 if it was not.
    """

    def __init__(
        self,
        gateway: Gateway,
        refuser: Refuser,
        environ: Environ,
        head: RequestHead,
        sock: socket.socket,
        *,
        granted: tuple[Route, Grant] | None = None,
        around: Around | None = None,
    ) -> None:
        ahead = take_read_ahead(environ, sock)
        super().__init__(
            gateway, refuser, transport_of(sock), peer_of(environ), tls=is_tls(environ), granted=granted
        )
        self._transport.unread(ahead)
        tune(sock)
        self.refused: Refused | None = None
        self.status = 500
        self._environ = environ
        self._head = head
        self._around = around or _call

    def _open(self, deadline: Deadline) -> Opened | None:
        try:
            return self._around(lambda: super(WSGIExchange, self)._open(deadline))
        except ClientLeft:
            self.status = 400  # for the server's log
            raise

    def _read_head(self, deadline: Deadline) -> RequestHead:
        return self._head

    def _enter(self) -> None:
        if self.refused:
            raise self.refused

    def _refuse(
        self, refused: Refused, head: RequestHead | None, upgrade: Upgrade | None, deadline: Deadline
    ) -> None:
        self.status = refused.status
        super()._refuse(refused, head, upgrade, deadline)

    def _accept(self, upgrade: Upgrade, subprotocol: str | None, deadline: Deadline) -> None:
        self.status = 101
        environ = {name: self._environ[name] for name in _HANDSHAKE if name in self._environ}
        environ["werkzeug.socket"] = _Handshaking(self._transport, deadline)
        server = simple_websocket.Server.accept(
            environ, subprotocols=[subprotocol] if subprotocol else [], thread_class=_NoThread
        )
        self._transport = server.sock.transport  # from here on simple-websocket is out of it

    def _close(self) -> None:
        self._transport.give_back()


class _Handshaking:
    """Stands for the socket that simple-websocket answers on, so that one deadline bounds the answer."""

    def __init__(self, transport: Transport, deadline: Deadline) -> None:
        self.transport = transport
        self._deadline = deadline

    def send(self, data: bytes) -> int:
        self.transport.send(data, self._deadline)
        return len(data)


class _NoThread:
    """Stands for the thread that would read the socket: the relay does."""

    def __init__(self, target: Callable[[], Any]) -> None:
        self.name = ""

    def start(self) -> None:
        pass


def _call(function: Callable[[], _Result]) -> _Result:
    return function()
