"""One client's connection to the listening socket: TLS if need be, then the request and what comes of it."""

from __future__ import annotations

import socket
from collections.abc import Callable

from ..exceptions import Refused, RequestTimeout, TransportClosed
from ..net.transport import PlainTransport
from ..protocol.client import Client, Peer
from ..protocol.closing import Leg
from ..protocol.handshake import Upgrade
from ..protocol.proxy_protocol import ProxyHeader, ProxyHeaderReader
from ..protocol.request import HeadReader, RequestHead
from ..runtime.deadline import Deadline
from ..runtime.logs import get_logger
from ..web import endpoints
from ..web.in_flight import Place
from .exchange import LAST_WORD_SECONDS, Exchange
from .gateway import Gateway
from .opening import Opened
from .refusal import Refuser

__all__ = ["ClientConnection"]

logger = get_logger("wsproxy.connection")

_RECEIVE = 4096
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientConnection(Exchange):
    """Serves one accepted connection.

    :param gateway: what all sessions of the server share.
    :param refuser: how to refuse.
    :param sock: the client's; owned and closed here.
    :param peer: the other end of it.
    """

    def __init__(self, gateway: Gateway, refuser: Refuser, sock: socket.socket, peer: Peer) -> None:
        super().__init__(gateway, refuser, PlainTransport(sock), peer, tls=gateway.tls is not None)
        self._sock = sock
        self._heard = False  # the client has said something
        self._place: Place | None = None  # of a client that has authenticated, and opens no console
        # Guarded by the lock, too: whether it has had its answer, and whether stop() has left it a second.
        self._told = self._last_second = False

    def _open(self, deadline: Deadline) -> Opened | None:
        if self._read_source(deadline) and self._secure(deadline):
            return super()._open(deadline)
        return None

    def _read_source(self, deadline: Deadline) -> bool:
        """Learn whose connection this is, where a trusted peer has to say so; return False if it does not."""
        trusted = self._gateway.config.trusted
        if not trusted.proxy_protocol or not trusted.trusts(self._peer):
            return True
        if not self._transport.starts(deadline):
            return False
        self._heard = True
        try:
            header = self._read_proxy_header(deadline)
        except Refused as refused:
            self._fail_source(refused, deadline)
            return False
        if header.address:
            self._source = Peer.at(header.address, header.port)
            self.session.record.identify(Client(self._peer, header.address))
            self._gateway.admission.move(self, self._source.network)
        return True

    def _read_proxy_header(self, deadline: Deadline) -> ProxyHeader:
        reader = ProxyHeaderReader()
        # Byte by byte at its end, since what follows is TLS or the request; but by a peer that is trusted.
        while (header := reader.feed(self._received(self._transport.recv, reader.wants, deadline))) is None:
            pass
        return header

    def _fail_source(self, refused: Refused, deadline: Deadline) -> None:
        """Tell a peer that has sent no header; what TLS would be spoken to is not told anything."""
        if self._gateway.tls is None:
            return self._refuse(refused, None, None, deadline)
        self._note_no_handshake(refused.message)

    def _note_no_handshake(self, why: str) -> None:
        record, level = self.session.record, self._gateway.admission.refusal_level()
        self._gateway.counters.fail_handshake(Leg.CLIENT)
        logger.log(level, "connection %s from %s: %s", record.session, record.peer, why)

    def _note_told(self) -> None:
        with self._lock:
            self._told = True
            if self._last_second:  # to read it
                self._gateway.housekeeping.add(self, LAST_WORD_SECONDS)

    def _stop_waiting(self) -> None:
        """A request that has begun to come has a second more, to be answered; the rest is shut down."""
        with self._lock:
            self._last_second = not self._told
            if self._last_second:
                self._gateway.housekeeping.add(self, LAST_WORD_SECONDS)
                if not self._heard and not self._transport.has_arrived():
                    # Nothing has come, or it is just being received by our thread, which answers it then.
                    self._transport.end_reading()
                return
        self.abort()

    def _secure(self, deadline: Deadline) -> bool:
        """Do the TLS handshake, where clients have to come by TLS; return False if that came to nothing."""
        tls = self._gateway.tls
        if tls is None:
            return True
        try:
            if not self._transport.starts(deadline):
                return False  # a probe of the port, for instance; neither costs a TLS object nor a line
            self._heard = True
            transport = tls.wrap(self._sock)
            with self._lock:
                self._transport, aborted = transport, self._aborted
                if not self._last_second:
                    self._allow(self._gateway.config.request_timeout)
            if aborted:
                transport.abort()
            transport.handshake(deadline)
            return True
        except (TransportClosed, TimeoutError) as exc:
            self._note_no_handshake(f"no TLS handshake: {exc}")
            self._transport.linger(Deadline(LAST_WORD_SECONDS))  # so that the reason arrives, an alert
            return False

    def _read_head(self, deadline: Deadline) -> RequestHead:
        reader = HeadReader(self._gateway.config.max_head_size)
        try:
            while (head := reader.feed(self._receive(_RECEIVE, deadline))) is None:
                pass
        except RequestTimeout:
            raise reader.fault or RequestTimeout("the request did not arrive in time") from None
        self._transport.unread(reader.rest)  # WebSocket data already, or a body
        return head

    def _receive(self, most: int, deadline: Deadline) -> bytes:
        """Receive 1 to ``most`` bytes of the request."""
        return self._received(self._transport.recv_sparingly, most, deadline)

    def _received(self, receive: Callable[[int, Deadline], bytes], most: int, deadline: Deadline) -> bytes:
        try:
            received = receive(most, deadline)
        except TimeoutError:
            raise RequestTimeout("the request did not arrive in time") from None
        if not received:
            raise TransportClosed("the client left before its request was complete")
        self._heard = True
        return received

    def _answer(self, head: RequestHead, client: Client, deadline: Deadline) -> bytes:
        gateway = self._gateway
        if not endpoints.is_probe(head, gateway.config.endpoint_rules):
            self.session.opening.check_address(client)
        request = endpoints.HTTPRequest(
            head,
            client,
            deadline,
            lambda most: self._read_body(head, most, deadline),
            self.session.record,
            on_authenticated=self._authenticated,
        )
        answer = endpoints.answer(
            request,
            gateway.config.endpoint_rules,
            gateway.access,
            gateway.readiness,
            gateway.files,
            gateway.pictures,
            gateway.is_healthy,
        )
        if self._place and self.session.record.admitted:
            self._place.hold(len(answer))
        return answer

    def _authenticated(self, user: str | int) -> None:
        """From now on the client takes none of the places for others that have not authenticated."""
        self._place = self._gateway.in_flight.enter(user)
        self.session.opening.release_connection()
        if not self._gateway.admission.prove(self):
            raise TransportClosed("shut down to make room for others")

    def _send_answer(self, answer: bytes, deadline: Deadline) -> None:
        if self.session.record.admitted:  # it is a picture: the time until now was the API's
            deadline = Deadline(self._gateway.config.request_timeout)
        self._transport.bound_unsent()
        self._transport.send(answer, deadline)
        self._note_told()
        self._transport.linger(Deadline(LAST_WORD_SECONDS))

    def _read_body(self, head: RequestHead, most: int, deadline: Deadline) -> bytes:
        size, body = head.body_size(most), b""
        if "100-continue" in (token.lower() for token in head.tokens("expect")):
            self._transport.send(_CONTINUE, deadline)  # RFC 9110 section 10.1.1
        while len(body) < size:
            body += self._receive(size - len(body), deadline)
        return body

    def _prove(self) -> None:
        if not self._gateway.admission.prove(self):
            raise TransportClosed("shut down to make room for others")
        super()._prove()

    def _accept(self, upgrade: Upgrade, subprotocol: str | None, deadline: Deadline) -> None:
        self._transport.send(upgrade.accept(subprotocol), deadline)

    def _close(self) -> None:
        if self._place:
            self._place.release()
        self._transport.close()
