"""One client's connection: TLS if need be, then the request, then an answer, a refusal, or a session."""

from __future__ import annotations

import logging
import socket
import threading

from . import http
from .deadline import Deadline
from .exceptions import Refused, RequestTimeout, TransportClosed
from .forwarded import Client, client_of
from .refusal import Refuser
from .session import Gateway, Session, rfb_expected
from .transport import PlainTransport, Transport
from .upgrade import HeadReader, RequestHead, Upgrade

__all__ = ["ClientConnection"]

logger = logging.getLogger("wsproxy.connection")

_RECEIVE = 4096
_LAST_WORD_SECONDS = 1.0
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_REFUSAL_SECONDS = 10.0  # more than a refusal takes, whatever the client does


class ClientConnection:
    """Serves one accepted connection.

    :param gateway: what all sessions of the server share.
    :param refuser: how to refuse.
    :param sock: the client's; owned and closed here.
    :param peer: the client's address, for the log.
    """

    def __init__(self, gateway: Gateway, refuser: Refuser, sock: socket.socket, peer: str) -> None:
        self.session = Session(gateway, peer)
        self._gateway = gateway
        self._refuser = refuser
        self._sock = sock
        # Guards the attributes below.
        self._lock = threading.Lock()
        self._transport: Transport = PlainTransport(sock)
        self._aborted = False
        self._in_session = False  # the session answers for how the connection ends
        self._proved = False
        self._owed = False  # the client has said something, and has had no answer yet

    def run(self) -> None:
        """Serve the connection and close it. Blocks until its end; never raises."""
        deadline = Deadline(self._gateway.config.request_timeout)
        try:
            if self._secure(deadline) and self._open(deadline):
                self.session.relay(self._transport)
        except (TransportClosed, TimeoutError) as exc:
            logger.debug("connection %s from %s: %s", self.session.id, self.session.peer, exc)
        except Exception:  # a bug of ours
            logger.exception("connection %s failed", self.session.id)
        finally:
            self._gateway.housekeeping.remove(self)
            self.session.close()
            self._transport.close()

    def stop(self) -> None:
        """See :class:`.Connection`: a session gets its Close, a request its answer; the rest is shut down."""
        self.session.stop()
        with self._lock:
            in_session, transport = self._in_session, self._transport
        if in_session:
            return
        if self._owed or transport.has_arrived():
            self._gateway.housekeeping.add(self, _LAST_WORD_SECONDS)
        else:
            self.abort()

    def abort(self) -> None:
        """See :class:`.Connection`."""
        with self._lock:
            self._aborted, transport = True, self._transport  # which may be about to be replaced
        transport.abort()
        self.session.abort()

    def tick(self, now: float) -> float:
        """Housekeeping: end a client whose time is over, but which keeps our thread inside OpenSSL.

        A read returns when there is data, or nothing more in the kernel. Until then OpenSSL takes in key
        updates (RFC 8446 section 4.6.3) and the like, as fast as they come.
        """
        self.abort()
        return now + _LAST_WORD_SECONDS

    def _secure(self, deadline: Deadline) -> bool:
        """Do the TLS handshake, where clients have to come by TLS; return False if that came to nothing."""
        tls = self._gateway.tls
        if tls is None:
            return True
        try:
            if not self._transport.starts(deadline):
                return False  # a probe of the port, for instance; neither costs a TLS object nor a line
            self._owed = True
            transport = tls.wrap(self._sock)
            with self._lock:
                self._transport, aborted = transport, self._aborted
            if aborted:
                transport.abort()
            self._allow(self._gateway.config.request_timeout)
            transport.handshake(deadline)
            return True
        except (TransportClosed, TimeoutError) as exc:
            session = self.session
            level = self._gateway.admission.refusal_level()
            logger.log(level, "connection %s from %s: no TLS handshake: %s", session.id, session.peer, exc)
            self._transport.linger(Deadline(_LAST_WORD_SECONDS))  # so that the reason arrives, an alert
            return False

    def _allow(self, seconds: float) -> None:
        """See to it that nothing is read any more in so many seconds and one, where clients come by TLS."""
        if self._gateway.tls:
            self._gateway.housekeeping.add(self, seconds + _LAST_WORD_SECONDS)

    def _open(self, deadline: Deadline) -> bool:
        """Do everything up to the 101; return False if the request has been answered otherwise."""
        head: RequestHead | None = None
        upgrade: Upgrade | None = None
        try:
            head = self._read_head(deadline)
            self._gateway.housekeeping.remove(self)
            client = self._identify(head)
            if not head.asks_for_websocket:
                self._answer(head, client, deadline)
                return False
            upgrade = Upgrade(head)
            self._set_in_session(True)
            self.session.open(head, upgrade, client, deadline, self._prove)
        except Refused as refused:
            self._set_in_session(False)
            self._refuse(refused, head, upgrade, deadline)
            return False
        accepted = upgrade.accept(self.session.subprotocol)
        self._transport.send(accepted, Deadline(self._gateway.config.request_timeout))
        return True

    def _read_head(self, deadline: Deadline) -> RequestHead:
        reader = HeadReader()
        while (head := reader.feed(self._receive(_RECEIVE, deadline))) is None:
            pass
        self._transport.unread(reader.rest)  # WebSocket data already, or a body
        return head

    def _receive(self, most: int, deadline: Deadline) -> bytes:
        """Receive 1 to ``most`` bytes of the request."""
        try:
            received = self._transport.recv_sparingly(most, deadline)
        except TimeoutError:
            raise RequestTimeout("the request did not arrive in time") from None
        if not received:
            raise TransportClosed("the client left before its request was complete")
        self._owed = True
        return received

    def _identify(self, head: RequestHead) -> Client:
        """Find out who sent the request; the log names that client from now on."""
        gateway = self._gateway
        tls = gateway.tls is not None
        client = client_of(
            head,
            self.session.peer,
            tls,
            gateway.config.trusted_networks,
            trust_unix=gateway.config.trusts_unix,
        )
        self.session.peer = str(client)
        return client

    def _answer(self, head: RequestHead, client: Client, deadline: Deadline) -> None:
        """Answer a request that is no upgrade."""
        request = http.HTTPRequest(head, client, deadline, lambda most: self._read_body(head, most, deadline))
        config = self._gateway.config
        self._transport.send(http.answer(request, config.prefix, self._gateway.access), deadline)
        self._owed = False
        self._transport.linger(Deadline(_LAST_WORD_SECONDS))

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
        self._proved = True

    def _set_in_session(self, value: bool) -> None:
        with self._lock:
            self._in_session = value

    def _refuse(
        self, refused: Refused, head: RequestHead | None, upgrade: Upgrade | None, deadline: Deadline
    ) -> None:
        admission = self._gateway.admission
        logger.log(
            logging.INFO if self._proved else admission.refusal_level(),
            "connection %s refused: client %s: %d %s: %s%s",
            self.session.id,
            self.session.peer,
            refused.status,
            refused.slug,
            refused.message,
            f" ({refused.log_detail})" if refused.log_detail else "",
        )
        self._gateway.housekeeping.remove(self)  # where stop() has given it less time than that takes
        self._allow(_REFUSAL_SECONDS)
        if deadline.passed:  # by the dial, which has a deadline of its own, or as the reason itself
            deadline = Deadline(_LAST_WORD_SECONDS)
        self._refuser.refuse(
            self._transport,
            refused,
            upgrade,
            deadline,
            rfb_route=bool(head and upgrade and rfb_expected(head, self._gateway.config)),
            head_only=bool(head and head.method == "HEAD"),
        )
