"""Tells a client why it is refused: by HTTP, or so that a browser's user can read it.

A page cannot see the HTTP status of a refused WebSocket. So the proxy completes the opening handshake with
a browser, and refuses it then. noVNC gets RFB's failure message, which it shows to its user. Every page gets
the close code and reason.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from wsproto import WSConnection
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import LocalProtocolError

from ..exceptions import Refused, TransportClosed
from ..net.transport import Transport
from ..protocol import rfb
from ..protocol.handshake import PLAIN_KUBEVIRT, Upgrade, answered_subprotocol
from ..protocol.response import refusal_response
from ..runtime.deadline import Deadline

__all__ = ["Refuser", "by_websocket"]

_CONVERSATION_SECONDS = 5.0
_MAX_CONVERSATIONS = 64
_RFB_VERSION_SIZE = 12
_LINGER_SECONDS = 1.0
_MOST_RECEIVED = 4096


def by_websocket(mode: str, upgrade: Upgrade) -> bool:
    """Whether the sender of an upgrade request is refused by a WebSocket Close, and not by HTTP.

    :param mode: see :class:`Refuser`.
    """
    return mode == "close" or (mode == "auto" and upgrade.origin is not None)


class Refuser:
    """Refuses clients in one of three ways. Safe from every thread.

    :param mode: "http" or "close" for all clients, or "auto": browsers get a Close frame, and other clients
        an HTTP response.
    :param most: how many clients may get a Close frame at a time; others get an HTTP response.
    """

    def __init__(self, mode: str, most: int = _MAX_CONVERSATIONS) -> None:
        self._mode = mode
        # A refusal by Close holds a thread for up to 6 s, for a client that has not authenticated.
        self._conversations = threading.BoundedSemaphore(most)

    def refuse(
        self,
        transport: Transport,
        refused: Refused,
        upgrade: Upgrade | None,
        deadline: Deadline,
        *,
        on_told: Callable[[], None] = lambda: None,
        rfb_route: bool = False,
        head_only: bool = False,
    ) -> None:
        """Refuse the client, and give it time to read that.

        Blocks until ``deadline`` and a second more for HTTP, and for at most 6 s for a WebSocket.

        :param upgrade: the client's valid upgrade request, None if there is none.
        :param on_told: called when everything is sent; from then on this only waits for the client to read.
        :param rfb_route: whether the client expects to speak RFB.
        :param head_only: whether the request was HEAD.
        :raises TransportClosed: if the client is gone.
        :raises TimeoutError: if the client does not take the response in time.
        """
        websocket = upgrade is not None and by_websocket(self._mode, upgrade)
        if upgrade and websocket and refused.close_code and self._conversations.acquire(blocking=False):
            try:
                whole = Deadline(_CONVERSATION_SECONDS)
                _refuse_by_close(transport, refused, upgrade, whole, on_told, rfb_route)
            finally:
                self._conversations.release()
        else:
            transport.send(refusal_response(refused, head_only=head_only), deadline)
            on_told()
            transport.linger(Deadline(_LINGER_SECONDS))


def _refuse_by_close(
    transport: Transport,
    refused: Refused,
    upgrade: Upgrade,
    deadline: Deadline,
    on_told: Callable[[], None],
    rfb_route: bool,
) -> None:
    # Answer as the upstream would: if a browser offers subprotocols and gets none, it shows no reason at all.
    subprotocol = answered_subprotocol(upgrade.subprotocols, PLAIN_KUBEVIRT)
    transport.send(upgrade.accept(subprotocol), deadline)
    connection = upgrade.connection
    try:
        if rfb_route:
            version, failure = rfb.refusal(refused.message)
            transport.send(connection.send(BytesMessage(version)), deadline)
            if _version_came(transport, connection, deadline):
                transport.send(connection.send(BytesMessage(failure)), deadline)
        transport.send(
            connection.send(CloseConnection(refused.close_code or 1008, refused.close_reason)), deadline
        )
        on_told()
        for _ in _messages(transport, connection, deadline):
            pass
    except LocalProtocolError:
        pass  # the client closed first
    transport.linger(Deadline(_LINGER_SECONDS))


def _version_came(transport: Transport, connection: WSConnection, deadline: Deadline) -> bool:
    """Wait for the client's ProtocolVersion message, which may come in pieces (RFC 6143 section 7.1.1).

    :returns: False if the client ends first, or the deadline passes.
    """
    missing = _RFB_VERSION_SIZE
    for size in _messages(transport, connection, deadline):
        missing -= size
        if missing <= 0:
            return True
    return False


def _messages(transport: Transport, connection: WSConnection, deadline: Deadline) -> Iterator[int]:
    """Yield the bytes of data that each read brings, until a Close, the end, or the deadline.

    It also ends when the client has sent 4 KiB, which is more than it needs. If one read has several pings,
    it answers only the last (RFC 6455 section 5.5.3), because each answer costs a system call.
    """
    left = _MOST_RECEIVED
    while left:
        try:
            received = transport.recv_sparingly(left, deadline)
        except (TimeoutError, TransportClosed):
            return
        left -= len(received)
        connection.receive_data(received or None)
        size, ping = 0, None
        for event in connection.events():
            if isinstance(event, BytesMessage | TextMessage):
                size += len(event.data)
            elif isinstance(event, Ping):
                ping = event
            elif isinstance(event, CloseConnection):
                _answer_close(transport, connection, event, deadline)
                return
        if ping is not None:
            transport.send(connection.send(ping.response()), deadline)
        if size:
            yield size


def _answer_close(
    transport: Transport, connection: WSConnection, event: CloseConnection, deadline: Deadline
) -> None:
    try:
        transport.send(connection.send(event.response()), deadline)
    except (LocalProtocolError, TransportClosed):
        pass  # the client has answered the proxy's Close, or is gone
