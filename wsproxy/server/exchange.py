"""Serves one client's request, whatever the server: by an answer, a refusal, or a session."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from ..exceptions import InternalError, Refused, RequestTimeout, TransportClosed
from ..net.transport import Transport
from ..protocol.client import Client, Peer, client_of
from ..protocol.handshake import Upgrade, upgrade_of
from ..protocol.request import RequestHead
from ..protocol.routing import Route, subresource_of
from ..runtime.deadline import Deadline
from ..runtime.logs import get_logger, in_session
from ..runtime.timers import Ticking
from ..telemetry.record import SessionRecord
from ..tokens.claims import Grant
from ..web.endpoints import HTTPRequest
from ..web.in_flight import Place
from .connections import Connection
from .gateway import Gateway
from .opening import ClientLeft, Opened
from .refusal import Refuser
from .session import Session

__all__ = ["LAST_WORD_SECONDS", "Around", "ClientIO", "Exchange", "received"]

logger = get_logger("wsproxy.connection")

LAST_WORD_SECONDS = 1.0
"""Seconds for a client to read the last bytes that the proxy sends it."""

_REFUSAL_SECONDS = 11.0  # longer than any refusal takes, whatever the client does
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Around = Callable[[Callable[[Deadline], Opened | None], Deadline], Opened | None]
"""Calls a function with a deadline, in a context that the embedding program sets up around the call."""


class ClientIO(Connection, Ticking, Protocol):
    """Receives one client's request, sends the 101, and ends the connection, as the server requires.

    Only the exchange's thread calls the methods, but any thread may call ``stop``, ``abort`` and ``tick``. A
    method with a deadline blocks until then, or for at most a second more. The others do not block.

    :ivar peer: the other end of the connection.
    :ivar source: the client that the peer has named before the request; None if it has named none.
    :ivar tls: whether the client uses TLS.
    :ivar transport: to the client; :meth:`begin` may replace it.
    """

    peer: Peer
    source: Peer | None
    tls: bool
    transport: Transport

    def begin(self, record: SessionRecord, deadline: Deadline) -> bool:
        """Do what comes before a request, such as TLS; return False if no answer can be sent.

        :param record: gets the client, if the peer names it.
        """
        ...

    def receive_head(self, deadline: Deadline) -> RequestHead:
        """Return the head of the request. Bytes behind it stay in the transport.

        :raises Refused: if the head is late, too large or faulty.
        :raises TransportClosed: if the client leaves first.
        """
        ...

    def accept(self, upgrade: Upgrade, subprotocol: str | None, deadline: Deadline) -> None:
        """Send the 101, with this subprotocol; None for none."""
        ...

    def note_told(self) -> None:
        """Note that the client has been sent its whole answer, and only has to read it."""
        ...

    def close(self) -> None:
        """End the connection, which nothing uses any more. Idempotent."""
        ...


class Exchange:
    """Serves one request, and the session that it opens.

    One thread uses it. Any thread may call :meth:`stop` and :meth:`abort`.

    :param gateway: what all sessions of the server share.
    :param refuser: refuses the client.
    :param client: the client's connection.
    :param granted: route and grant, if the embedding program has authenticated the client; None if the
        request needs a token.
    :param around: runs everything from the request head to the 101.
    :ivar refused: the refusal of an upgrade request, if it is decided before :meth:`run`.
    """

    def __init__(
        self,
        gateway: Gateway,
        refuser: Refuser,
        client: ClientIO,
        *,
        granted: tuple[Route, Grant] | None = None,
        around: Around | None = None,
    ) -> None:
        self.client = client
        self.session = Session(gateway, client.peer)
        self.refused: Refused | None = None
        self._gateway = gateway
        self._refuser = refuser
        self._granted = granted
        self._around = around
        self._places: list[Place] = []  # held for an authenticated client that opens no console
        self._proved = False
        self._status = InternalError.status
        self._in_session = False  # whether the session ends the connection; any thread reads it

    def stop(self) -> None:
        """See :class:`.Connection`. A session ends by a Close."""
        self.session.stop()
        if not self._in_session:
            self.client.stop()

    def abort(self) -> None:
        """See :class:`.Connection`."""
        self.client.abort()
        self.session.abort()

    def run(self) -> int:
        """Serve the request and end the connection. Blocks until its end; never raises.

        :returns: the HTTP status that an upgrade request got; 500 if it got none.
        """
        with in_session(self.session.id):
            try:
                deadline = Deadline(self._gateway.config.request_timeout)
                if self.client.begin(self.session.record, deadline):
                    opened = self._around(self._open, deadline) if self._around else self._open(deadline)
                    if opened:
                        self.session.relay(opened, self.client.transport, self.client.close)
            except (TransportClosed, TimeoutError) as exc:
                logger.debug("connection %s from %s: %s", self.session.id, self.session.record.peer, exc)
            except Exception:  # noqa: BLE001 - a bug, which is reported
                self._report_failure()
            finally:
                self._gateway.housekeeping.remove(self.client)
                for place in self._places:
                    place.release()
                self.client.close()
                self.session.close()
        return self._status

    def _open(self, deadline: Deadline) -> Opened | None:
        """Do everything up to the 101; return None if the client has got another answer."""
        head: RequestHead | None = None
        upgrade: Upgrade | None = None
        try:
            head = self.client.receive_head(deadline)
            sender = self._identify(head)
            if head.asks_for_websocket:
                upgrade = Upgrade(head)
                opened = self._open_console(head, upgrade, sender, deadline)
            else:
                answer = self._answer(head, sender, deadline)
        except (TransportClosed, TimeoutError):
            raise
        except Exception as exc:  # noqa: BLE001 - a refusal, or a bug, which is reported
            self._in_session = False
            self._refuse(exc if isinstance(exc, Refused) else self._report_failure(), head, upgrade, deadline)
            return None
        if upgrade is None:
            self._send(answer, deadline)
            return None
        self._status = 101
        self.client.accept(upgrade, opened.subprotocol, Deadline(self._gateway.config.request_timeout))
        return opened

    def _identify(self, head: RequestHead) -> Client:
        """Return the client that sent the request; the log names it from now on."""
        self._gateway.housekeeping.remove(self.client)
        if head.fault:
            raise head.fault
        client = self.client
        sender = client_of(head, client.peer, client.tls, self._gateway.config.trusted, client.source)
        self.session.record.identify(sender)
        return sender

    # A console

    def _open_console(
        self, head: RequestHead, upgrade: Upgrade, sender: Client, deadline: Deadline
    ) -> Opened:
        self._in_session = True
        if self.refused:
            raise self.refused
        try:
            return self.session.open(
                head, upgrade, sender, deadline, self._prove, self._granted, self.client.transport
            )
        except ClientLeft as left:
            self._status = 400
            self._gateway.reports.left(self.session.record, str(left), self._level(upgrade))
            raise

    def _prove(self) -> None:
        """Stop counting the client as pending, because it has authenticated."""
        if not self._gateway.admission.prove(self.client):
            raise TransportClosed("shut down to make room for another client")
        self._proved = True

    # An answer

    def _answer(self, head: RequestHead, sender: Client, deadline: Deadline) -> bytes:
        gateway, session = self._gateway, self.session
        request = HTTPRequest(
            head,
            sender,
            deadline,
            lambda most: self._read_body(head, most, deadline),
            session.record,
            session.opening.address_slot,
            gateway.in_flight,
            self._places,
            on_authenticated=self._prove,
        )
        return gateway.answer(request, gateway.pictures)

    def _read_body(self, head: RequestHead, most: int, deadline: Deadline) -> bytes:
        size, body, transport = head.body_size(most), b"", self.client.transport
        if "100-continue" in (token.lower() for token in head.tokens("expect")):
            transport.send(_CONTINUE, deadline)  # RFC 9110 section 10.1.1
        while len(body) < size:
            body += received(transport.recv_sparingly, size - len(body), deadline)
        return body

    def _send(self, answer: bytes, deadline: Deadline) -> None:
        transport = self.client.transport
        if self.session.record.admitted:  # a screenshot: the API may have used up the deadline
            deadline = Deadline(self._gateway.config.request_timeout)
        transport.bound_unsent()
        transport.send(answer, deadline)
        self.client.note_told()
        transport.linger(Deadline(LAST_WORD_SECONDS))

    # A refusal

    def _report_failure(self) -> Refused:
        """Report the exception being handled, which is a bug, and return the refusal for the client."""
        self._gateway.failures.report(logger, "connection %s failed", self.session.id)
        return InternalError()

    def _refuse(
        self, refused: Refused, head: RequestHead | None, upgrade: Upgrade | None, deadline: Deadline
    ) -> None:
        gateway, client = self._gateway, self.client
        self._status = refused.status
        gateway.reports.refused(self.session.record, refused, self._level(upgrade, refused))
        gateway.housekeeping.remove(client)  # stop() may have left it less time than a refusal takes
        if client.tls:
            gateway.housekeeping.add(client, _REFUSAL_SECONDS)
        if deadline.passed:  # in the dial, which has its own deadline, or because the request is late
            deadline = Deadline(LAST_WORD_SECONDS)
        upgrade = upgrade or upgrade_of(head)  # a page sees no HTTP status, even for a faulty head
        self._refuser.refuse(
            client.transport,
            refused,
            upgrade,
            deadline,
            on_told=client.note_told,
            rfb_route=bool(head and upgrade and self._expects_rfb(head)),
            head_only=bool(head and head.method == "HEAD"),
        )

    def _level(self, upgrade: Upgrade | None, refused: Refused | None = None) -> int:
        """Return the log level for a client without an answer. Unauthenticated ones must not fill the log."""
        if isinstance(refused, InternalError) or (upgrade is None and self.session.record.admitted):
            # The bug has been logged. Pages request screenshots of all machines again and again.
            return logging.DEBUG
        return logging.INFO if self._proved and upgrade else self._gateway.admission.refusal_level()

    def _expects_rfb(self, head: RequestHead) -> bool:
        """Whether the sender of a well-formed upgrade request expects to speak RFB."""
        if self._granted:
            return self._granted[0].subresource == "vnc"
        return subresource_of(head.target, self._gateway.config.routes) == "vnc"


def received(receive: Callable[[int, Deadline], bytes], most: int, deadline: Deadline) -> bytes:
    """Receive 1 to ``most`` bytes of a request. Blocks until the deadline.

    :raises RequestTimeout: if the deadline passes.
    :raises TransportClosed: if the client leaves first.
    """
    try:
        data = receive(most, deadline)
    except TimeoutError:
        raise RequestTimeout("the request did not arrive in time") from None
    if not data:
        raise TransportClosed("the client left before its request was complete")
    return data
