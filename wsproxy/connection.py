"""One client's connection: read the request, then answer it, refuse it, or open a session."""

from __future__ import annotations

import logging
import threading

from . import http
from .deadline import Deadline
from .exceptions import Refused, RequestTimeout, TransportClosed
from .forwarded import Client, client_of
from .refusal import Refuser
from .session import Gateway, Session, rfb_expected
from .transport import TLSTransport, Transport
from .upgrade import HeadReader, RequestHead, Upgrade

__all__ = ["ClientConnection"]

logger = logging.getLogger("wsproxy.connection")

_RECEIVE = 4096
_LAST_WORD_SECONDS = 1.0
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientConnection:
    """Serves one accepted connection.

    :param gateway: what all sessions of the server share.
    :param refuser: how to refuse.
    :param transport: the client's; owned and closed here.
    :param peer: the client's address, for the log.
    """

    def __init__(self, gateway: Gateway, refuser: Refuser, transport: Transport, peer: str) -> None:
        self.session = Session(gateway, peer)
        self._gateway = gateway
        self._refuser = refuser
        self._transport = transport
        # Guards the flag: whether the session answers for how the connection ends.
        self._lock = threading.Lock()
        self._in_session = False

    def run(self) -> None:
        """Serve the connection and close it. Blocks until its end; never raises."""
        try:
            if self._open(Deadline(self._gateway.config.request_timeout)):
                self.session.relay(self._transport)
        except (TransportClosed, TimeoutError) as exc:
            logger.debug("connection %s from %s: %s", self.session.id, self.session.peer, exc)
        except Exception:  # a bug of ours
            logger.exception("connection %s failed", self.session.id)
        finally:
            self.session.close()
            self._transport.close()

    def stop(self) -> None:
        """See :class:`.Connection`: a session gets its Close, anything else is shut down."""
        self.session.stop()
        with self._lock:
            in_session = self._in_session
        if not in_session:
            self.abort()

    def abort(self) -> None:
        """See :class:`.Connection`."""
        self._transport.abort()
        self.session.abort()

    def _open(self, deadline: Deadline) -> bool:
        """Do everything up to the 101; return False if the request has been answered otherwise."""
        head: RequestHead | None = None
        upgrade: Upgrade | None = None
        try:
            head = self._read_head(deadline)
            client = self._identify(head)
            if not head.asks_for_websocket:
                self._answer(head, client, deadline)
                return False
            upgrade = Upgrade(head)
            self._set_in_session(True)
            self.session.open(head, upgrade, client, deadline)
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
            received = self._transport.recv(most, deadline)
        except TimeoutError:
            raise RequestTimeout("the request did not arrive in time") from None
        if not received:
            raise TransportClosed("the client left before its request was complete")
        return received

    def _identify(self, head: RequestHead) -> Client:
        """Find out who sent the request; the log names that client from now on."""
        tls = isinstance(self._transport, TLSTransport)
        client = client_of(head, self.session.peer, tls, self._gateway.config.trusted_networks)
        self.session.peer = str(client)
        return client

    def _answer(self, head: RequestHead, client: Client, deadline: Deadline) -> None:
        """Answer a request that is no upgrade."""
        request = http.HTTPRequest(head, client, deadline, lambda most: self._read_body(head, most, deadline))
        config = self._gateway.config
        self._transport.send(http.answer(request, config.prefix, self._gateway.access), deadline)
        self._transport.linger(Deadline(_LAST_WORD_SECONDS))

    def _read_body(self, head: RequestHead, most: int, deadline: Deadline) -> bytes:
        size, body = head.body_size(most), b""
        if "100-continue" in (token.lower() for token in head.tokens("expect")):
            self._transport.send(_CONTINUE, deadline)  # RFC 9110 section 10.1.1
        while len(body) < size:
            body += self._receive(size - len(body), deadline)
        return body

    def _set_in_session(self, value: bool) -> None:
        with self._lock:
            self._in_session = value

    def _refuse(
        self, refused: Refused, head: RequestHead | None, upgrade: Upgrade | None, deadline: Deadline
    ) -> None:
        logger.info(
            "connection %s refused: client %s: %d %s: %s%s",
            self.session.id,
            self.session.peer,
            refused.status,
            refused.slug,
            refused.message,
            f" ({refused.log_detail})" if refused.log_detail else "",
        )
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
