"""One client's connection to the listening socket: PROXY protocol and TLS if required, then the head."""

from __future__ import annotations

import socket
import threading

from ..exceptions import Refused, RequestTimeout, TransportClosed
from ..net.transport import PlainTransport, Transport
from ..protocol.client import Client, Peer
from ..protocol.closing import Leg
from ..protocol.handshake import Upgrade
from ..protocol.proxy_protocol import ProxyHeader, ProxyHeaderReader
from ..protocol.request import HeadReader, RequestHead
from ..runtime.deadline import Deadline
from ..runtime.logs import get_logger
from ..telemetry.record import SessionRecord
from .exchange import LAST_WORD_SECONDS, received
from .gateway import Gateway

__all__ = ["ClientConnection"]

logger = get_logger("wsproxy.connection")

_RECEIVE = 4096


class ClientConnection:
    """One accepted connection; see :class:`.ClientIO`.

    :param gateway: what all sessions of the server share.
    :param sock: the client's socket, which this object owns from now on.
    :param peer: the other end of the socket.
    """

    def __init__(self, gateway: Gateway, sock: socket.socket, peer: Peer) -> None:
        self.peer = peer
        self.source: Peer | None = None
        self.tls = gateway.tls is not None
        self._gateway = gateway
        self._sock = sock
        self._heard = False  # whether the client has sent anything
        self._fault: Refused | None = None  # of the PROXY header; receive_head() raises it
        # Guards the attributes below.
        self._lock = threading.Lock()
        self.transport: Transport = PlainTransport(sock)
        self._aborted = False
        # Whether the client has been sent its whole answer, and whether stop() has left it a second.
        self._told = self._last_second = False

    def begin(self, record: SessionRecord, deadline: Deadline) -> bool:
        return self._read_source(record, deadline) and self._secure(record, deadline)

    def _read_source(self, record: SessionRecord, deadline: Deadline) -> bool:
        """If a trusted peer has to name the client, read its PROXY header.

        :returns: False if the connection has to end without an answer.
        """
        trusted = self._gateway.config.trusted
        if not trusted.proxy_protocol or not trusted.trusts(self.peer):
            return True
        if not self.transport.starts(deadline):
            return False
        self._heard = True
        try:
            header = self._read_proxy_header(deadline)
        except Refused as refused:
            if self.tls:  # no answer without TLS for a client that expects TLS
                self._note_no_handshake(record, refused.message)
            self._fault = refused
            return not self.tls
        if header.address:
            self.source = Peer.at(header.address, header.port)
            record.identify(Client(self.peer, header.address))
            self._gateway.admission.move(self, self.source.network)
        return True

    def _read_proxy_header(self, deadline: Deadline) -> ProxyHeader:
        reader = ProxyHeaderReader()
        # The reader takes the header's end byte by byte, because TLS or the request follows. That is no
        # means of attack, because only trusted peers get here.
        while (header := reader.feed(received(self.transport.recv, reader.wants, deadline))) is None:
            pass
        return header

    def _note_no_handshake(self, record: SessionRecord, why: str) -> None:
        self._gateway.counters.fail_handshake(Leg.CLIENT)
        level = self._gateway.admission.refusal_level()
        logger.log(level, "connection %s from %s: %s", record.session, record.peer, why)

    def _secure(self, record: SessionRecord, deadline: Deadline) -> bool:
        """If clients must use TLS, do the handshake; return False if that failed, or the client left."""
        gateway, tls = self._gateway, self._gateway.tls
        if tls is None:
            return True
        try:
            if not self.transport.starts(deadline):
                return False  # such as a TCP probe, which costs no TLS object and no log line
            self._heard = True
            transport = tls.wrap(self._sock)
            with self._lock:
                self.transport, aborted = transport, self._aborted
                if not self._last_second:
                    gateway.housekeeping.add(self, gateway.config.request_timeout + LAST_WORD_SECONDS)
            if aborted:
                transport.abort()
            transport.handshake(deadline)
            return True
        except (TransportClosed, TimeoutError) as exc:
            self._note_no_handshake(record, f"no TLS handshake: {exc}")
            self.transport.linger(Deadline(LAST_WORD_SECONDS))  # so that the alert with the reason arrives
            return False

    def receive_head(self, deadline: Deadline) -> RequestHead:
        if self._fault:
            raise self._fault
        reader = HeadReader(self._gateway.config.max_head_size)
        try:
            while (head := reader.feed(self._receive(deadline))) is None:
                pass
        except RequestTimeout:
            raise reader.fault or RequestTimeout("the request did not arrive in time") from None
        self.transport.unread(reader.rest)  # the first WebSocket data, or a body
        return head

    def _receive(self, deadline: Deadline) -> bytes:
        data = received(self.transport.recv_sparingly, _RECEIVE, deadline)
        self._heard = True
        return data

    def accept(self, upgrade: Upgrade, subprotocol: str | None, deadline: Deadline) -> None:
        self.transport.send(upgrade.accept(subprotocol), deadline)

    def note_told(self) -> None:
        with self._lock:
            self._told = True
            if self._last_second:  # another one, for the client to read the answer
                self._gateway.housekeeping.add(self, LAST_WORD_SECONDS)

    def stop(self) -> None:
        """If a request has begun to arrive, leave it a second to be answered. Otherwise shut down."""
        with self._lock:
            self._last_second = not self._told
            if self._last_second:
                self._gateway.housekeeping.add(self, LAST_WORD_SECONDS)
                if not self._heard and not self.transport.has_arrived():
                    # Nothing has arrived, or the connection's thread is just receiving it, and answers it.
                    self.transport.end_reading()
                return
        self.abort()

    def abort(self) -> None:
        with self._lock:
            self._aborted, transport = True, self.transport  # _secure() sees the flag if it replaces it
        transport.abort()

    def tick(self, now: float) -> float:
        """Housekeeping: abort a client whose time is over, even if it keeps its thread inside OpenSSL.

        One read of OpenSSL returns when there is data, or when the kernel has no more bytes. Until then it
        processes records without data, such as key updates (RFC 8446 section 4.6.3).
        """
        self.abort()
        return now + LAST_WORD_SECONDS

    def close(self) -> None:
        self._fault = None  # its traceback refers to this object
        self.transport.close()
