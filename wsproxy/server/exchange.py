"""One client's request and what comes of it: an answer, a refusal, or a session. What all servers share."""

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
"""How long a client may take to read what it is told last."""

_REFUSAL_SECONDS = 11.0  # more than a refusal takes, whatever the client does
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Around = Callable[[Callable[[Deadline], Opened | None], Deadline], Opened | None]
"""Calls a function with a deadline, and with whatever the embedding program needs around it."""


class ClientIO(Connection, Ticking, Protocol):
    """How a server takes one client's request, lets the client in, and ends its connection.

    The exchange's thread calls it. Any thread may call ``stop``, ``abort`` and ``tick``. What has a deadline
    may block until then, or for a second more. Nothing else blocks.

    :ivar peer: the other end of the connection.
    :ivar source: whose connection it is, if the peer has said so before the request.
    :ivar tls: whether the client comes by TLS.
    :ivar transport: to the client; :meth:`begin` may replace it.
    """

    peer: Peer
    source: Peer | None
    tls: bool
    transport: Transport

    def begin(self, record: SessionRecord, deadline: Deadline) -> bool:
        """Do what comes before a request; return False if there is nobody to answer.

        :param record: gets who the client is, if the peer says so.
        """
        ...

    def receive_head(self, deadline: Deadline) -> RequestHead:
        """Return the head of the request. What has come behind it is left in the transport."""
        ...

    def accept(self, upgrade: Upgrade, subprotocol: str | None, deadline: Deadline) -> None:
        """Answer 101, with this subprotocol."""
        ...

    def note_told(self) -> None:
        """The client has been told all that there is to say to it, and has to read it."""
        ...

    def close(self) -> None:
        """End the connection, when nothing uses it any more. Idempotent."""
        ...


class Exchange:
    """Serves one request, and the session that comes of it.

    Used by one thread, but for :meth:`stop` and :meth:`abort`, which any thread may call.

    :param gateway: what all sessions of the server share.
    :param refuser: how to refuse.
    :param client: the client's connection.
    :param granted: what to open and the grant for it, where the embedding program has authenticated the
        client by itself; None if a token has to say so.
    :param around: called for all that comes between the connection's beginning and the 101.
    :ivar refused: why no console is opened, if that is known before :meth:`run`.
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
        self._places: list[Place] = []  # of a client that has authenticated, and opens no console
        self._proved = False
        self._status = InternalError.status
        self._in_session = False  # the session answers for how the connection ends; read by any thread

    def stop(self) -> None:
        """See :class:`.Connection`: a session gets its Close."""
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
            except Exception:  # noqa: BLE001 - a bug of ours, reported
                self._report_failure()
            finally:
                self._gateway.housekeeping.remove(self.client)
                for place in self._places:
                    place.release()
                self.client.close()
                self.session.close()
        return self._status

    def _open(self, deadline: Deadline) -> Opened | None:
        """Do everything up to the 101; return None if the request has been answered otherwise."""
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
        except Exception as exc:  # noqa: BLE001 - a refusal, or a bug of ours, reported
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
        """Find out who sent the request; the log names that client from now on."""
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
        """From now on the client takes none of the places for others that have not authenticated."""
        if not self._gateway.admission.prove(self.client):
            raise TransportClosed("shut down to make room for others")
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
        if self.session.record.admitted:  # it is a picture: the time until now was the API's
            deadline = Deadline(self._gateway.config.request_timeout)
        transport.bound_unsent()
        transport.send(answer, deadline)
        self.client.note_told()
        transport.linger(Deadline(LAST_WORD_SECONDS))

    # A refusal

    def _report_failure(self) -> Refused:
        """Report a bug of ours that is being handled, and return what to tell the client."""
        self._gateway.failures.report(logger, "connection %s failed", self.session.id)
        return InternalError()

    def _refuse(
        self, refused: Refused, head: RequestHead | None, upgrade: Upgrade | None, deadline: Deadline
    ) -> None:
        gateway, client = self._gateway, self.client
        self._status = refused.status
        gateway.reports.refused(self.session.record, refused, self._level(upgrade, refused))
        gateway.housekeeping.remove(client)  # where stop() has given it less time than that takes
        if client.tls:
            gateway.housekeeping.add(client, _REFUSAL_SECONDS)
        if deadline.passed:  # by the dial, which has a deadline of its own, or as the reason itself
            deadline = Deadline(LAST_WORD_SECONDS)
        upgrade = upgrade or upgrade_of(head)  # its page cannot see a status, whatever was wrong before that
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
        """Return the level at which it is logged that a client got nothing: strangers do not fill the log."""
        if isinstance(refused, InternalError) or (upgrade is None and self.session.record.admitted):
            # That has its line already; pages ask for the pictures of every machine again and again.
            return logging.DEBUG
        return logging.INFO if self._proved and upgrade else self._gateway.admission.refusal_level()

    def _expects_rfb(self, head: RequestHead) -> bool:
        """Whether the client of a well-formed upgrade request is about to speak RFB."""
        if self._granted:
            return self._granted[0].subresource == "vnc"
        return subresource_of(head.target, self._gateway.config.routes) == "vnc"


def received(receive: Callable[[int, Deadline], bytes], most: int, deadline: Deadline) -> bytes:
    """Receive 1 to ``most`` bytes of a request, or raise what the client is told, or is not.

    Blocks until the deadline.
    """
    try:
        data = receive(most, deadline)
    except TimeoutError:
        raise RequestTimeout("the request did not arrive in time") from None
    if not data:
        raise TransportClosed("the client left before its request was complete")
    return data
