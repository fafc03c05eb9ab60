"""One client's request and what comes of it: an answer, a refusal, or a session. What all servers share."""

from __future__ import annotations

import logging
import threading

from ..exceptions import InternalError, Refused, TransportClosed
from ..net.transport import Transport
from ..protocol.client import Client, Peer, client_of
from ..protocol.handshake import Upgrade, upgrade_of
from ..protocol.request import RequestHead
from ..protocol.routing import Route, subresource_of
from ..runtime.deadline import Deadline
from ..runtime.logs import get_logger, in_session
from ..tokens.claims import Grant
from .gateway import Gateway
from .opening import ClientLeft, Opened
from .refusal import Refuser
from .session import Session

__all__ = ["LAST_WORD_SECONDS", "Exchange"]

logger = get_logger("wsproxy.connection")

LAST_WORD_SECONDS = 1.0
"""How long a client may take to read what it is told last."""

_REFUSAL_SECONDS = 10.0  # more than a refusal takes, whatever the client does


class Exchange:
    """Serves one request, and the session that comes of it.

    A server says how it reads, answers and accepts, in the methods at the end.

    :param gateway: what all sessions of the server share.
    :param refuser: how to refuse.
    :param transport: to the client.
    :param peer: the other end of the connection.
    :param tls: whether the client comes by TLS.
    :param granted: what to open and the grant for it, where the embedding program has authenticated the
        client by itself; None if a token has to say so.
    """

    def __init__(
        self,
        gateway: Gateway,
        refuser: Refuser,
        transport: Transport,
        peer: Peer,
        *,
        tls: bool,
        granted: tuple[Route, Grant] | None = None,
    ) -> None:
        self.session = Session(gateway, peer)
        self._gateway = gateway
        self._refuser = refuser
        self._peer = peer
        self._source: Peer | None = None  # whose connection it is, if the peer has said so before TLS
        self._tls = tls
        self._granted = granted
        # Guards the attributes below.
        self._lock = threading.Lock()
        self._transport = transport
        self._aborted = False
        self._in_session = False  # the session answers for how the connection ends
        self._proved = False

    def run(self) -> None:
        """Serve the request and end the connection. Blocks until its end; never raises."""
        with in_session(self.session.id):
            self._run()

    def _run(self) -> None:
        try:
            if opened := self._open(Deadline(self._gateway.config.request_timeout)):
                self.session.relay(opened, self._transport, self._close)
        except (TransportClosed, TimeoutError) as exc:
            logger.debug("connection %s from %s: %s", self.session.id, self.session.record.peer, exc)
        except Exception:  # noqa: BLE001 - a bug of ours, reported
            self._report_failure()
        finally:
            self._gateway.housekeeping.remove(self)
            self._close()
            self.session.close()

    def stop(self) -> None:
        """See :class:`.Connection`: a session gets its Close."""
        self.session.stop()
        with self._lock:
            in_session = self._in_session
        if not in_session:
            self._stop_waiting()

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
        return now + LAST_WORD_SECONDS

    def _allow(self, seconds: float) -> None:
        """See to it that nothing is read any more in so many seconds and one, where clients come by TLS."""
        if self._tls:
            self._gateway.housekeeping.add(self, seconds + LAST_WORD_SECONDS)

    def _open(self, deadline: Deadline) -> Opened | None:
        """Do everything up to the 101; return None if the request has been answered otherwise."""
        head: RequestHead | None = None
        upgrade: Upgrade | None = None
        try:
            head = self._read_head(deadline)
            self._gateway.housekeeping.remove(self)
            if head.fault:
                raise head.fault
            client = self._identify(head)
            if head.asks_for_websocket:
                upgrade = Upgrade(head)
                self._set_in_session(True)
                self._enter()
                opened = self.session.open(
                    head, upgrade, client, deadline, self._prove, self._granted, self._transport
                )
            else:
                answer = self._answer(head, client, deadline)
        except ClientLeft as left:
            self._gateway.reports.left(self.session.record, str(left), self._refusal_level())
            raise
        except (TransportClosed, TimeoutError):
            raise
        except Exception as exc:  # noqa: BLE001 - a refusal, or a bug of ours, reported
            self._set_in_session(False)
            self._refuse(self._refusal_of(exc), head, upgrade, deadline)
            return None
        if upgrade is None:
            self._send_answer(answer, deadline)
            return None
        self._accept(upgrade, opened.subprotocol, Deadline(self._gateway.config.request_timeout))
        return opened

    def _refusal_of(self, exc: Exception) -> Refused:
        """Return what to tell the client of what was raised; a bug of ours is reported."""
        if isinstance(exc, Refused):
            return exc
        self._report_failure()
        return InternalError()

    def _report_failure(self) -> None:
        self._gateway.failures.report(logger, "connection %s failed", self.session.id)

    def _identify(self, head: RequestHead) -> Client:
        """Find out who sent the request; the log names that client from now on."""
        config = self._gateway.config
        client = client_of(head, self._peer, self._tls, config.trusted, self._source)
        self.session.record.identify(client)
        return client

    def _set_in_session(self, value: bool) -> None:
        with self._lock:
            self._in_session = value

    def _refuse(
        self, refused: Refused, head: RequestHead | None, upgrade: Upgrade | None, deadline: Deadline
    ) -> None:
        if isinstance(refused, InternalError) or (upgrade is None and self.session.record.admitted):
            # That has its line already; pages ask for the pictures of every machine again and again.
            level = logging.DEBUG
        else:
            level = self._refusal_level()
        self._gateway.reports.refused(self.session.record, refused, level)
        self._gateway.housekeeping.remove(self)  # where stop() has given it less time than that takes
        self._allow(_REFUSAL_SECONDS)
        if deadline.passed:  # by the dial, which has a deadline of its own, or as the reason itself
            deadline = Deadline(LAST_WORD_SECONDS)
        upgrade = upgrade or upgrade_of(head)  # its page cannot see a status, whatever was wrong before that
        self._refuser.refuse(
            self._transport,
            refused,
            upgrade,
            deadline,
            on_told=self._note_told,
            rfb_route=bool(head and upgrade and self._expects_rfb(head)),
            head_only=bool(head and head.method == "HEAD"),
        )

    def _refusal_level(self) -> int:
        """Strangers do not fill the log."""
        return logging.INFO if self._proved else self._gateway.admission.refusal_level()

    def _expects_rfb(self, head: RequestHead) -> bool:
        """Whether the client of a well-formed upgrade request is about to speak RFB."""
        if self._granted:
            return self._granted[0].subresource == "vnc"
        return subresource_of(head.target, self._gateway.config.routes) == "vnc"

    # What a server does in its own way

    def _note_told(self) -> None:
        """Called when the client has been told all that there is to say to it."""

    def _stop_waiting(self) -> None:
        """End what is no session, as the server stops. Any thread, never blocks, idempotent."""
        self.abort()

    def _read_head(self, deadline: Deadline) -> RequestHead:
        """Return the request's head."""
        raise NotImplementedError

    def _answer(self, head: RequestHead, client: Client, deadline: Deadline) -> bytes:
        """Return the whole answer to a request that is no upgrade."""
        raise NotImplementedError

    def _send_answer(self, answer: bytes, deadline: Deadline) -> None:
        """Send what :meth:`_answer` has returned."""
        raise NotImplementedError

    def _enter(self) -> None:
        """Called with a well-formed upgrade request, before anything is decided; may refuse it."""

    def _prove(self) -> None:
        """Called once the client may come in, before the dial."""
        self._proved = True

    def _accept(self, upgrade: Upgrade, subprotocol: str | None, deadline: Deadline) -> None:
        """Answer 101, with this subprotocol."""
        raise NotImplementedError

    def _close(self) -> None:
        """End the connection. Idempotent."""
        raise NotImplementedError
